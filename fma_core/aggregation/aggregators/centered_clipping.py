"""Centred clipping: a mean in which no update is further from the centre than a bound.

Source: Karimireddy et al. 2021, arXiv:2012.10333, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.aggregation.aggregators.aggregator import Aggregator, Block, Float64, Rows, aggregators
from fma_core.aggregation.aggregators.distances import clip_factors, distances_from, is_measurable
from fma_core.parameters import Bounds


@aggregators.register("centered_clipping")
@dataclass(frozen=True)
class CenteredClipping(Aggregator[Float64]):
    """The last aggregate plus the mean of the updates' differences from it, each clipped to length tau; repeated.

    An update so far away that the square of its distance overflows float64 counts as one that changed nothing.
    """

    source: ClassVar[str] = "Karimireddy et al. 2021, arXiv:2012.10333"

    tau: Annotated[
        float, Bounds(gt=0), "the largest distance from the centre, in the unit of the weights"
    ] = 10.0
    iterations: Annotated[int, Bounds(ge=1, le=1000), "how often the result is taken as the centre again"] = 1

    def measure(self, rows: Rows) -> Float64:
        """The weights with which the rows make up the centre v; the last aggregate is the zero of the rows."""
        num_rows = rows.num_rows
        weights = clip_factors(np.sqrt(rows.squared_norms()), self.tau) / num_rows
        if self.iterations == 1:
            return weights
        gram = rows.gram()
        counted = np.flatnonzero(is_measurable(gram))
        gram = gram[np.ix_(counted, counted)]
        found = weights[counted]
        for _ in range(self.iterations - 1):
            # v + (1/n) Σ s_i (Δ_i − v), where v is itself Σ found[i] · Δ_i.
            factors = clip_factors(distances_from(found, gram), self.tau) / num_rows
            found = found * (1 - np.add.reduce(factors)) + factors
        weights[counted] = found
        return weights

    def combine(self, block: Block, decision: Float64) -> Float64:
        return block.weighted_sum(decision)
