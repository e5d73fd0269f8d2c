"""FedDyn: a term that changes from round to round makes each client's optimum agree with the common one.

    client:  x_i = argmin F_i(θ) − ⟨g_i, θ⟩ + (α / 2) ‖θ − x‖²,   g_i ← g_i − α (x_i − x)
    server:  h ← h − (α / N) Σ (x_i − x),   x ← mean x_i − h / α

Source: Acar et al. 2021, arXiv:2111.04263, algorithm 1. Rows are changes of the model that the round starts from, so
that mean x_i − h / α is the step mean Δ_i − h / α; a delta that a client sends counts as such a change. N is the number
of all clients; the sum is over the clients that answered. The client keeps g_i, which starts at 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from fma_core.aggregation.aggregators.aggregator import (
    Aggregator,
    Block,
    Float64,
    Rows,
    RowWeights,
    aggregators,
)
from fma_core.parameters import Bounds


@aggregators.register("feddyn")
@dataclass(frozen=True)
class FedDyn(Aggregator[int]):
    """The plain mean of the weights, corrected by the drift of all clients so far; clients are told alpha.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"w": np.array([2.0])}, {"w": np.array([4.0])}]
    >>> fold_arrays(FedDyn(alpha=0.5), updates, start={"w": np.array([0.0])}, num_clients=6)["w"]
    array([4.])

    The mean is 3. In the first round h is −0.5 · (2 + 4) / 6 = −0.5, and the correction −h / alpha is 1.
    """

    source: ClassVar[str] = "Acar et al. 2021 (FedDyn), arXiv:2111.04263"
    relative_to: ClassVar[Literal["base", "start"]] = "start"
    integers: ClassVar[Literal["mean", "median"]] = "mean"
    takes_optimiser: ClassVar[bool] = False
    # The clients' own g_i are right only when h follows exactly what they sent.
    takes_clipped_rows: ClassVar[bool] = False
    takes_mixed_rows: ClassVar[bool] = False

    alpha: Annotated[
        float, Bounds(gt=0), "the weight of the penalty ‖θ − x‖² / 2 for moving away from the model"
    ] = 0.01

    @property
    def states(self) -> Mapping[str, float]:
        return {"h": 0.0}

    @property
    def client_config(self) -> Mapping[str, Any]:
        return {"alpha": self.alpha}

    def measure(self, rows: Rows) -> int:
        # Clients that answered and then left still count.
        return max(rows.num_clients, rows.num_rows)

    def combine(self, block: Block, decision: int) -> Float64:
        total = block.weighted_sum(np.ones(block.num_rows))
        h = block.state("h")
        h -= self.alpha / decision * total
        return total / block.num_rows - h / self.alpha

    def row_weights(self, decision: int, num_rows: int) -> RowWeights:
        # Each change is in the mean and, by its share in h, in the correction.
        return RowWeights(np.full(num_rows, 1 / num_rows + 1 / decision))

    def integer_weights(self, num_examples: Sequence[int]) -> Sequence[int]:
        return [1] * len(num_examples)
