"""FedDyn: each client's objective is bent so that all of them agree with the common one where they meet.

    client:  x_i = argmin F_i(θ) − ⟨g_i, θ⟩ + (α / 2) ‖θ − x‖²,   g_i ← g_i − α (x_i − x)
    server:  h ← h − (α / N) Σ (x_i − x),   x ← mean x_i − h / α

Source: Acar et al. 2021, arXiv:2111.04263, algorithm 1. Rows are changes of the model that the round starts from, so
that mean x_i − h / α is the step mean Δ_i − h / α; what a client sends as a delta is taken for such a change. N is
the number of all clients, the sum goes over those that answered. The client keeps g_i and starts with 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from fma_core.aggregation.aggregators.aggregator import Aggregator, Block, Float64, Rows, aggregators
from fma_core.parameters import Bounds


@aggregators.register("feddyn")
@dataclass(frozen=True)
class FedDyn(Aggregator[int]):
    """The plain mean of the weights, less what all clients together have drifted; clients are told alpha."""

    source: ClassVar[str] = "Acar et al. 2021 (FedDyn), arXiv:2111.04263"
    relative_to: ClassVar[Literal["base", "start"]] = "start"
    integers: ClassVar[Literal["mean", "median"]] = "mean"
    takes_optimiser: ClassVar[bool] = False
    # The clients' own g_i count on h to follow what they sent.
    takes_clipped_rows: ClassVar[bool] = False
    takes_mixed_rows: ClassVar[bool] = False

    alpha: Annotated[
        float, Bounds(gt=0), "what a client pays for moving away from the model, times ‖θ − x‖² / 2"
    ] = 0.01

    @property
    def states(self) -> Mapping[str, float]:
        return {"h": 0.0}

    @property
    def client_config(self) -> Mapping[str, Any]:
        return {"alpha": self.alpha}

    def measure(self, rows: Rows) -> int:
        # Clients that left after they answered still count.
        return max(rows.num_clients, rows.num_rows)

    def combine(self, block: Block, decision: int) -> Float64:
        total = block.weighted_sum(np.ones(block.num_rows))
        h = block.state("h")
        h -= self.alpha / decision * total
        return total / block.num_rows - h / self.alpha

    def integer_weights(self, num_examples: Sequence[int]) -> Sequence[int]:
        return [1] * len(num_examples)
