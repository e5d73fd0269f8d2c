"""The geometric median (RFA): the point with the smallest weighted sum of distances to the updates.

Source: Pillutla et al. 2022, arXiv:1912.13445, algorithm 2 (smoothed Weiszfeld).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.aggregation.aggregators.aggregator import (
    Aggregator,
    Block,
    Float64,
    Rows,
    RowWeights,
    aggregators,
)
from fma_core.aggregation.aggregators.distances import (
    distances_from,
    is_measurable,
    squared_distances,
    too_far_apart,
)
from fma_core.aggregation.aggregators.mean import lowest_terms
from fma_core.parameters import Bounds

# Each step costs n² operations, and 10 to 20 steps are usual. More are needed only when one update has about half of
# the weight: the sum of distances then hardly changes on the way to it.
MAX_STEPS = 1000


@aggregators.register("geometric_median")
@dataclass(frozen=True)
class GeometricMedian(Aggregator[Float64]):
    """The point with the least sum of distances to the updates, each weighted by its number of examples.

    At most 1000 steps of Weiszfeld's algorithm. It tolerates attackers with less than half of the examples, as clients
    report them.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"w": np.array([value])} for value in (1.0, 2.0, 900.0)]
    >>> fold_arrays(GeometricMedian(), updates)["w"].round(3)
    array([2.])
    """

    source: ClassVar[str] = "Pillutla et al. 2022 (RFA), arXiv:1912.13445"
    is_translation_equivariant: ClassVar[bool] = True
    measures_distances: ClassVar[bool] = True
    bears_by_examples: ClassVar[bool] = True

    nu: Annotated[
        float, Bounds(gt=0), "the smallest distance: an update that is nearer counts as this far away"
    ] = 1e-6
    tolerance: Annotated[
        float, Bounds(gt=0), "the search ends at a step below this share of the mean distance"
    ] = 1e-6

    def measure(self, rows: Rows) -> Float64:
        """The weights, of sum 1, whose weighted sum of the rows is the median."""
        examples = np.array(lowest_terms(rows.num_examples), dtype=np.float64)
        shares = examples / np.add.reduce(examples)
        counted = np.flatnonzero(shares)
        if len(counted) > 1:
            gram = rows.gram()
            counted = np.flatnonzero((shares > 0) & is_measurable(gram))
            if len(counted) == 0:
                raise too_far_apart()
            shares[counted] = self._weiszfeld(shares[counted], gram[np.ix_(counted, counted)])
        weights = np.zeros(rows.num_rows)
        weights[counted] = shares[counted]
        return weights

    def combine(self, block: Block, decision: Float64) -> Float64:
        return block.weighted_sum(decision)

    def row_weights(self, decision: Float64, num_rows: int) -> RowWeights:
        return RowWeights(decision)

    def _weiszfeld(self, shares: Float64, gram: Float64) -> Float64:
        # z = Σ weights[i] · row i all along, so that its distances follow from the Gram matrix.
        weights = self._pulls(shares, _median_distances(shares, np.sqrt(squared_distances(gram))))
        for _ in range(MAX_STEPS):
            distances = distances_from(weights, gram)
            before, weights = weights, self._pulls(shares, distances)
            # An upper bound of the step of z, by the triangle inequality.
            step = np.add.reduce(np.abs(weights - before) * distances)
            if step <= self.tolerance * np.add.reduce(weights * distances):
                break
        return weights

    def _pulls(self, shares: Float64, distances: Float64) -> Float64:
        """shares[i] / max(nu, distances[i]), scaled to a sum of 1."""
        distances = np.maximum(self.nu, distances)
        pulls: Float64 = shares * (distances.min() / distances)
        return np.divide(pulls, np.add.reduce(pulls), out=pulls)


def _median_distances(shares: Float64, distances: Float64) -> Float64:
    """The distance of each row within which the rows have half of the weight.

    The search begins at the mean weighted by the inverse of this distance. From the plain mean, one update of enormous
    values would cost hundreds of steps; rows with many others nearby are close to the answer.
    """
    medians = np.empty(len(shares))
    for index, row in enumerate(distances):
        nearest = np.argsort(row, kind="stable")
        reached = np.cumsum(shares[nearest])
        medians[index] = row[nearest[np.searchsorted(reached, 0.5 * reached[-1])]]
    return medians
