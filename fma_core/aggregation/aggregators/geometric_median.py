"""The geometric median (RFA): the point whose weighted distances to the updates add up to the least.

Source: Pillutla et al. 2022, arXiv:1912.13445, algorithm 2 (smoothed Weiszfeld).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.aggregation.aggregators.aggregator import Aggregator, Block, Float64, Rows, aggregators
from fma_core.aggregation.aggregators.distances import (
    distances_from,
    is_measurable,
    squared_distances,
    too_far_apart,
)
from fma_core.aggregation.aggregators.mean import lowest_terms
from fma_core.parameters import Bounds

# Each costs n² operations, and a dozen or two are usual. More are needed only where an update has about half of the
# weight, so that the sum of distances hardly changes on the way to it.
MAX_STEPS = 1000


@aggregators.register("geometric_median")
@dataclass(frozen=True)
class GeometricMedian(Aggregator[Float64]):
    """The point with the least sum of distances to the updates, each weighted by its number of examples.

    At most 1000 steps of Weiszfeld's algorithm. It holds against less than half of the examples, as clients count them.
    """

    source: ClassVar[str] = "Pillutla et al. 2022 (RFA), arXiv:1912.13445"
    is_translation_equivariant: ClassVar[bool] = True
    measures_distances: ClassVar[bool] = True

    nu: Annotated[float, Bounds(gt=0), "the least distance that an update counts as having"] = 1e-6
    tolerance: Annotated[
        float, Bounds(gt=0), "the step, as a share of the mean distance, below which the search ends"
    ] = 1e-6

    def measure(self, rows: Rows) -> Float64:
        """The weights, of sum 1, with which the rows make up the median."""
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

    def _weiszfeld(self, shares: Float64, gram: Float64) -> Float64:
        # z = Σ weights[i] · row i all along, so that its distances follow from the Gram matrix.
        weights = self._pulls(shares, _median_distances(shares, np.sqrt(squared_distances(gram))))
        for _ in range(MAX_STEPS):
            distances = distances_from(weights, gram)
            before, weights = weights, self._pulls(shares, distances)
            # No longer than this is the step of z, by the triangle inequality.
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
    """How far each row is from the nearest rows that have half of the weight.

    The search begins at the mean weighted by the inverse of this. From the plain mean it would take hundreds of steps
    back from one update of enormous values; rows that most others are near to are within the answer's reach.
    """
    medians = np.empty(len(shares))
    for index, row in enumerate(distances):
        nearest = np.argsort(row, kind="stable")
        reached = np.cumsum(shares[nearest])
        medians[index] = row[nearest[np.searchsorted(reached, 0.5 * reached[-1])]]
    return medians
