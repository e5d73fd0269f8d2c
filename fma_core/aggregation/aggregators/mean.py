"""Means: by number of examples (FedAvg), and FMA's two unweighted ones.

Source: McMahan et al. 2017, arXiv:1602.05629 (weights n_i / Σ n_j); FMA's `avg_values_if_data` and `average_layers`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from fma_core.errors import NoUpdates


@dataclass(frozen=True)
class Weights:
    """Σ values[i] · row i / total is the mean."""

    values: Float64
    total: float


@aggregators.register("mean")
@dataclass(frozen=True)
class Mean(Aggregator[Weights]):
    """The mean of the updates, each weighted by the number of examples that it was trained on.

    >>> import numpy as np
    >>> from fma_core.in_memory import Update, fold_arrays
    >>> few = Update({"w": np.array([0.0])}, num_examples=1)
    >>> many = Update({"w": np.array([4.0])}, num_examples=3)
    >>> fold_arrays(Mean(), [few, many])["w"]
    array([3.])
    """

    source: ClassVar[str] = "McMahan et al. 2017 (FedAvg), arXiv:1602.05629"
    is_translation_equivariant: ClassVar[bool] = True
    acts_on_weights: ClassVar[bool] = True
    integers: ClassVar[Literal["mean", "median"]] = "mean"
    takes_staleness: ClassVar[bool] = True

    def measure(self, rows: Rows) -> Weights:
        values = np.array(lowest_terms(rows.num_examples), dtype=np.float64)
        if rows.discounts is not None:
            values *= rows.discounts
        return Weights(values, float(np.add.reduce(values)))

    def combine(self, block: Block, decision: Weights) -> Float64:
        # Add first and divide once, as np.average does: a weight of 1 / n would round every term.
        result = block.weighted_sum(decision.values)
        return np.divide(result, decision.total, out=result)

    def row_weights(self, decision: Weights, num_rows: int) -> RowWeights:
        return RowWeights(decision.values / decision.total)


class UniformMean(Aggregator[None]):
    """The mean of the updates, each counted once."""

    source: ClassVar[str] = "Capital One's Federated Model Aggregation"
    is_translation_equivariant: ClassVar[bool] = True
    acts_on_weights: ClassVar[bool] = True
    integers: ClassVar[Literal["mean", "median"]] = "mean"

    def combine(self, block: Block, decision: None) -> Float64:
        result = block.weighted_sum(np.ones(block.num_rows))
        return np.divide(result, block.num_rows, out=result)

    def row_weights(self, decision: None, num_rows: int) -> RowWeights:
        return RowWeights(np.full(num_rows, 1 / num_rows))

    def integer_weights(self, num_examples: Sequence[int]) -> Sequence[int]:
        return [1] * len(num_examples)


@aggregators.register("avg_values_if_data")
@dataclass(frozen=True)
class AvgValuesIfData(UniformMean):
    """FMA's element-wise mean of the whole data: every update counts the same.

    >>> import numpy as np
    >>> from fma_core.in_memory import Update, fold_arrays
    >>> few = Update({"w": np.array([0.0])}, num_examples=1)
    >>> many = Update({"w": np.array([4.0])}, num_examples=3)
    >>> fold_arrays(AvgValuesIfData(), [few, many])["w"]
    array([2.])
    """


@aggregators.register("average_layers")
@dataclass(frozen=True)
class AverageLayers(UniformMean):
    """FMA's element-wise mean, layer by layer: the same numbers as `avg_values_if_data`, for layers of any shapes.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"bias": np.array(value), "weight": np.array([value, 9.0])} for value in (0.0, 4.0)]
    >>> fold_arrays(AverageLayers(), updates)
    {'bias': array(2.), 'weight': array([2., 9.])}
    """


def lowest_terms(weights: Sequence[int]) -> list[int]:
    """The weights divided by their common divisor, so that a common factor does not change a bit of the result.

    Equal weights become 1: their weighted mean is the plain mean, and that of a single update is the update.
    Raises NoUpdates when all weights are 0: FedAvg is not defined then.
    """
    divisor = math.gcd(*weights)
    if divisor == 0:
        raise NoUpdates("the updates must have at least one example between them, found none")
    return [weight // divisor for weight in weights]
