"""FedAsync: every update is mixed into the model by itself; the older it is, the less it counts.

    x ← (1 − α_τ) x + α_τ x_i,   α_τ = α (τ + 1)^−a

Source: Xie et al. 2019, arXiv:1903.03934. The paper's server mixes each update when it arrives. Here, the updates that
wait for the same round are mixed in one after another, in the order of the rows, with the staleness that they had when
the round started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from fma_core.aggregation.aggregators.aggregator import (
    Aggregator,
    Block,
    Float64,
    Rows,
    RowWeights,
    UpdateKind,
    aggregators,
)
from fma_core.aggregation.staleness import Polynomial
from fma_core.parameters import Bounds


@aggregators.register("fedasync")
@dataclass(frozen=True)
class FedAsync(Aggregator[Float64]):
    """Steps towards the weights of one update after another; the older the update's base is, the smaller the step.

    A staleness function of the model replaces (staleness + 1)^-a.

    >>> import numpy as np
    >>> from fma_core.in_memory import Update, fold_arrays
    >>> fresh = Update({"w": np.array([8.0])})
    >>> old = Update({"w": np.array([0.0])}, staleness=3)  # alpha · (3 + 1)^-0.5 = 0.25
    >>> fold_arrays(FedAsync(alpha=0.5), [fresh, old], start={"w": np.array([0.0])})["w"]
    array([3.])
    """

    source: ClassVar[str] = "Xie et al. 2019 (FedAsync), arXiv:1903.03934"
    # It mixes in weights, whatever they were trained from: x_i − x, not the client's own change.
    relative_to: ClassVar[Literal["base", "start"]] = "start"
    integers: ClassVar[Literal["mean", "median"]] = "mean"
    update_kinds: ClassVar[tuple[UpdateKind, ...]] = ("weights",)
    takes_staleness: ClassVar[bool] = True
    weighs_by_age: ClassVar[bool] = True
    takes_optimiser: ClassVar[bool] = False
    takes_clipped_rows: ClassVar[bool] = False
    takes_mixed_rows: ClassVar[bool] = False

    alpha: Annotated[float, Bounds(gt=0, le=1), "how far a fresh update moves the model"] = 0.6
    a: Annotated[float, Bounds(ge=0, le=64), "how fast the step shrinks with staleness"] = 0.5

    def measure(self, rows: Rows) -> Float64:
        """The factor of each x_i − x: α_i Π (1 − α_j) over all j after i."""
        alphas = self.alpha * self.discounts(rows)
        kept_after = np.ones(rows.num_rows)
        kept_after[:-1] = np.cumprod(1 - alphas[:0:-1])[::-1]
        return alphas * kept_after

    def combine(self, block: Block, decision: Float64) -> Float64:
        return block.weighted_sum(decision)

    def row_weights(self, decision: Float64, num_rows: int) -> RowWeights:
        return RowWeights(decision)

    def integer_weights(self, num_examples: Sequence[int]) -> Sequence[int]:
        return [1] * len(num_examples)

    def discounts(self, rows: Rows) -> Float64:
        if rows.discounts is not None:
            return rows.discounts
        return np.array([Polynomial(self.a).discount(age) for age in rows.staleness])
