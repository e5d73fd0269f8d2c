"""Centred clipping: a mean in which each update is moved to within a bound of the centre.

Source: Karimireddy et al. 2021, arXiv:2012.10333, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from fma_core.aggregation.aggregators.aggregator import (
    Aggregator,
    Block,
    Float64,
    Rows,
    RowWeights,
    aggregators,
)
from fma_core.aggregation.aggregators.distances import clip_factors, distances_from, is_measurable
from fma_core.parameters import Bounds


@dataclass(frozen=True)
class Clipped:
    """The centre is Σ weights[i] · row i; is_clipped: the rows that were moved towards it at last."""

    weights: Float64
    is_clipped: NDArray[np.bool_]


@aggregators.register("centered_clipping")
@dataclass(frozen=True)
class CenteredClipping(Aggregator[Clipped]):
    """The last aggregate plus the mean of the updates' differences from it, each clipped to length tau; repeated.

    An update whose squared distance overflows float64 counts as one that changed nothing.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"w": np.array([1.0])}, {"w": np.array([900.0])}]
    >>> fold_arrays(CenteredClipping(tau=3.0), updates, start={"w": np.array([0.0])})["w"]
    array([2.])
    """

    source: ClassVar[str] = "Karimireddy et al. 2021, arXiv:2012.10333"

    tau: Annotated[
        float, Bounds(gt=0), "the largest distance from the centre, in the unit of the weights"
    ] = 10.0
    iterations: Annotated[int, Bounds(ge=1, le=1000), "how often the result is taken as the centre again"] = 1

    def measure(self, rows: Rows) -> Clipped:
        """The weights whose weighted sum of the rows is the centre v; the last aggregate is the zero of the rows."""
        num_rows = rows.num_rows
        factors = clip_factors(np.sqrt(rows.squared_norms()), self.tau)
        weights = factors / num_rows
        is_clipped = factors < 1
        if self.iterations == 1:
            return Clipped(weights, is_clipped)
        gram = rows.gram()
        counted = np.flatnonzero(is_measurable(gram))
        gram = gram[np.ix_(counted, counted)]
        centre = weights[counted]
        for _ in range(self.iterations - 1):
            # v + (1/n) Σ s_i (Δ_i − v), where v is itself Σ centre[i] · Δ_i.
            factors = clip_factors(distances_from(centre, gram), self.tau)
            is_clipped[counted] = factors < 1
            factors /= num_rows
            centre = centre * (1 - np.add.reduce(factors)) + factors
        weights[counted] = centre
        return Clipped(weights, is_clipped)

    def combine(self, block: Block, decision: Clipped) -> Float64:
        return block.weighted_sum(decision.weights)

    def row_weights(self, decision: Clipped, num_rows: int) -> RowWeights:
        return RowWeights(decision.weights, is_clipped=decision.is_clipped)
