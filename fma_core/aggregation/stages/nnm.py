"""Nearest-neighbour mixing: every update is replaced by the mean of its nearest ones.

Source: Allouah et al. 2023, arXiv:2302.01772, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fma_core.aggregation.aggregators.aggregator import Rows
from fma_core.aggregation.aggregators.attackers import Attackers
from fma_core.aggregation.aggregators.distances import squared_distances
from fma_core.aggregation.aggregators.ties import best_rows, contents_of
from fma_core.aggregation.stages.stage import RowMap, RowStage, stages


@stages.register("nnm")
@dataclass(frozen=True)
class NearestNeighbourMixing(RowStage):
    """Replaces every update by the mean of the n − f updates nearest to it, itself included.

    It keeps its own number of examples. The order of the updates does not decide which of several equally near ones
    is taken.

    >>> import numpy as np
    >>> from fma_core.aggregation.aggregators import Median
    >>> from fma_core.aggregation.strategy import Strategy
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"w": np.array([value])} for value in (0.0, 2.0, 900.0)]
    >>> fold_arrays(Strategy(Median(), stages=(NearestNeighbourMixing(f=1),)), updates)["w"]
    array([1.])
    """

    source: ClassVar[str] = "Allouah et al. 2023, arXiv:2302.01772"
    minimum: ClassVar[str] = "2·f + 1"
    is_translation_equivariant: ClassVar[bool] = True
    measures_distances: ClassVar[bool] = True

    f: Attackers

    def min_updates(self, min_rows: int) -> int:
        return max(min_rows, 2 * self.f + 1)

    def map_rows(self, rows: Rows) -> RowMap:
        distances = squared_distances(rows.gram())
        # Itself first, before others at distance 0.
        np.fill_diagonal(distances, -1)
        num_neighbours = rows.num_rows - self.f
        matrix = np.zeros(distances.shape)
        contents, nothing_more = contents_of(rows), np.empty((rows.num_rows, 0))
        for shares, row in zip(matrix, distances, strict=True):
            shares[best_rows(row, num_neighbours, nothing_more, contents)] = 1 / num_neighbours
        return RowMap(matrix, rows.num_examples)
