"""FedAsync: every update is mixed into the model by itself, by less the older it is.

    x ← (1 − α_τ) x + α_τ x_i,   α_τ = α (τ + 1)^−a

Source: Xie et al. 2019, arXiv:1903.03934. The server of the paper mixes when an update arrives. Several that wait for
the same round are mixed in one after the other, in the order of the rows, with the staleness that they had at its
start.
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
    UpdateKind,
    aggregators,
)
from fma_core.aggregation.staleness import Polynomial
from fma_core.parameters import Bounds


@aggregators.register("fedasync")
@dataclass(frozen=True)
class FedAsync(Aggregator[Float64]):
    """The model moves towards the weights of each update in turn, by less the older its base is.

    A staleness function of the model stands in the place of (staleness + 1)^-a.
    """

    source: ClassVar[str] = "Xie et al. 2019 (FedAsync), arXiv:1903.03934"
    # What is mixed in are weights, whatever they were trained from: x_i − x, not the client's own change.
    relative_to: ClassVar[Literal["base", "start"]] = "start"
    integers: ClassVar[Literal["mean", "median"]] = "mean"
    update_kinds: ClassVar[tuple[UpdateKind, ...]] = ("weights",)
    takes_staleness: ClassVar[bool] = True
    takes_optimiser: ClassVar[bool] = False
    takes_clipped_rows: ClassVar[bool] = False
    takes_mixed_rows: ClassVar[bool] = False

    alpha: Annotated[float, Bounds(gt=0, le=1), "how far a fresh update moves the model"] = 0.6
    a: Annotated[float, Bounds(ge=0, le=64), "how fast that falls with staleness"] = 0.5

    def measure(self, rows: Rows) -> Float64:
        """The factors of x_i − x: α_i Π (1 − α_j) over all j after i."""
        discounts = rows.discounts
        if discounts is None:
            discounts = np.array([Polynomial(self.a).discount(age) for age in rows.staleness])
        alphas = self.alpha * discounts
        kept_after = np.ones(rows.num_rows)
        kept_after[:-1] = np.cumprod(1 - alphas[:0:-1])[::-1]
        return alphas * kept_after

    def combine(self, block: Block, decision: Float64) -> Float64:
        return block.weighted_sum(decision)

    def integer_weights(self, num_examples: Sequence[int]) -> Sequence[int]:
        return [1] * len(num_examples)
