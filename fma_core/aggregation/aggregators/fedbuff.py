"""FedBuff: the mean of the changes that clients made to the model they trained from; older ones count less.

    x ← x + (1 / K) Σ s(τ_i) Δ_i,   s(τ) = 1 / √(1 + τ)

Source: Nguyen et al. 2022, arXiv:2106.06639. K is the number of updates of the round. The paper's buffer size is the
requirement `require_x_updates`, its bound on staleness is `furthest_base_agg`, and its server learning rate is that of
the optimiser `sgd`.
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
    aggregators,
)
from fma_core.aggregation.aggregators.mean import Weights
from fma_core.aggregation.staleness import Polynomial


@aggregators.register("fedbuff")
@dataclass(frozen=True)
class FedBuff(Aggregator[Weights]):
    """The mean of the changes, each discounted by the age of the model that its client trained from.

    The discount is 1 / √(1 + staleness), unless the model has a staleness function of its own.

    >>> import numpy as np
    >>> from fma_core.in_memory import Update, fold_arrays
    >>> fresh = Update({"w": np.array([4.0])})
    >>> old = Update({"w": np.array([4.0])}, staleness=3)  # 1 / √(1 + 3) = 0.5
    >>> fold_arrays(FedBuff(), [fresh, old], start={"w": np.array([0.0])})["w"]
    array([3.])
    """

    source: ClassVar[str] = "Nguyen et al. 2022 (FedBuff), arXiv:2106.06639"
    integers: ClassVar[Literal["mean", "median"]] = "mean"
    takes_staleness: ClassVar[bool] = True
    weighs_by_age: ClassVar[bool] = True
    takes_mixed_rows: ClassVar[bool] = False

    normalise: Annotated[
        Literal["k", "sum_s"],
        "divide by the number of updates (the paper: stale rounds take shorter steps) or by the sum of the discounts",
    ] = "k"

    def measure(self, rows: Rows) -> Weights:
        discounts = self.discounts(rows)
        total = rows.num_rows if self.normalise == "k" else np.add.reduce(discounts)
        return Weights(discounts, float(total))

    def combine(self, block: Block, decision: Weights) -> Float64:
        result = block.weighted_sum(decision.values)
        return np.divide(result, decision.total, out=result)

    def row_weights(self, decision: Weights, num_rows: int) -> RowWeights:
        return RowWeights(decision.values / decision.total)

    def integer_weights(self, num_examples: Sequence[int]) -> Sequence[int]:
        return [1] * len(num_examples)

    def discounts(self, rows: Rows) -> Float64:
        if rows.discounts is not None:
            return rows.discounts
        return np.array([Polynomial(0.5).discount(age) for age in rows.staleness])
