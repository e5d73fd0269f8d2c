"""SCAFFOLD: clients correct the drift of their steps with control variates, their own one and that of all clients.

    client:  y ← y − η_l (g_i(y) − c_i + c),   c_i⁺ = c_i − c + (x − y) / (steps · η_l)
    server:  x ← x + η mean Δ_i,   c ← c + (1 / N) Σ (c_i⁺ − c_i)

Source: Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1 (c_i⁺ by option II). η is the learning rate of the
optimiser `sgd`. A client sends c_i⁺ − c_i beside its weights, as "control/<array>"; c is the state "c" of the
aggregate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fma_core.aggregation.aggregators.aggregator import (
    Aggregator,
    Block,
    Float64,
    Rows,
    RowWeights,
    aggregators,
)


@aggregators.register("scaffold")
@dataclass(frozen=True)
class Scaffold(Aggregator[int]):
    """The plain mean of the changes, with control variates against the drift of clients with different data.

    >>> import numpy as np
    >>> from fma_core.in_memory import ArrayRounds
    >>> rounds = ArrayRounds(Scaffold(), {"w": np.array([0.0])}, num_clients=4)
    >>> rounds.play([{"w": np.array([value]), "control/w": np.array([2.0])} for value in (1.0, 5.0)])
    {'w': array([3.])}
    >>> rounds.state["aggregator.c/w"]  # 0 + (2 + 2) / 4
    array([1.])
    """

    source: ClassVar[str] = "Karimireddy et al. 2020 (SCAFFOLD), arXiv:1910.06378"
    integers: ClassVar[Literal["mean", "median"]] = "mean"
    # A stage would change the weights but not the control variates that belong to them.
    takes_clipped_rows: ClassVar[bool] = False
    takes_mixed_rows: ClassVar[bool] = False
    payloads: ClassVar[tuple[str, ...]] = ("control",)

    @property
    def states(self) -> Mapping[str, float]:
        return {"c": 0.0}

    def measure(self, rows: Rows) -> int:
        # Clients that answered and then left still count.
        return max(rows.num_clients, rows.num_rows)

    def combine(self, block: Block, decision: int) -> Float64:
        everyone = np.ones(block.num_rows)
        c = block.state("c")
        c += block.payload("control").weighted_sum(everyone) / decision
        result = block.weighted_sum(everyone)
        return np.divide(result, block.num_rows, out=result)

    def row_weights(self, decision: int, num_rows: int) -> RowWeights:
        return RowWeights(np.full(num_rows, 1 / num_rows))

    def integer_weights(self, num_examples: Sequence[int]) -> Sequence[int]:
        return [1] * len(num_examples)
