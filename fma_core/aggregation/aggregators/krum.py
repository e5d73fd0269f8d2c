"""Krum: the one update whose neighbours are nearest.

Source: Blanchard et al. 2017, arXiv:1703.02757, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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
from fma_core.aggregation.aggregators.attackers import Attackers
from fma_core.aggregation.aggregators.distances import squared_distances, too_far_apart
from fma_core.aggregation.aggregators.ties import best_rows, contents_of


@aggregators.register("krum")
@dataclass(frozen=True)
class Krum(Aggregator[int]):
    """The update with the smallest sum of squared distances to its n − f − 2 nearest others.

    Of equal sums, the one whose next distances are smaller. The order of the updates plays no part.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"w": np.array([value])} for value in (1.0, 2.0, 3.0, 5.0, 900.0)]
    >>> fold_arrays(Krum(f=1), updates)["w"]
    array([2.])
    """

    source: ClassVar[str] = "Blanchard et al. 2017, arXiv:1703.02757"
    minimum: ClassVar[str] = "2·f + 3"
    is_translation_equivariant: ClassVar[bool] = True
    measures_distances: ClassVar[bool] = True

    f: Attackers

    @property
    def min_updates(self) -> int:
        return 2 * self.f + 3

    def measure(self, rows: Rows) -> int:
        [best] = krum_choice(rows, f=self.f, count=1)
        return int(best)

    def combine(self, block: Block, decision: int) -> Float64:
        return block.row(decision)

    def row_weights(self, decision: int, num_rows: int) -> RowWeights:
        return RowWeights((np.arange(num_rows) == decision).astype(np.float64))


def krum_choice(rows: Rows, *, f: int, count: int) -> NDArray[np.intp]:
    """The `count` rows with the best scores. Raises NonFiniteResult when they are too far apart."""
    values, _ = sorted_neighbours(squared_distances(rows.gram()))
    num_neighbours = rows.num_rows - f - 2
    scores = sums_of_first(values, num_neighbours)
    best = best_rows(scores, count, values[:, num_neighbours:], contents_of(rows))
    if np.isinf(scores[best]).any():
        raise too_far_apart()
    return best


def sorted_neighbours(squared: Float64) -> tuple[Float64, NDArray[np.int32]]:
    """The squared distances of each row to the others, ascending, and their indices; itself comes last, infinite."""
    values, order = squared.copy(), np.empty(squared.shape, np.int32)
    np.fill_diagonal(values, np.inf)
    for index, row in enumerate(values):  # one at a time: the orders of 1000 rows take 8 MB
        order[index] = np.argsort(row, kind="stable")
        values[index] = row[order[index]]
    return values, order


def sums_of_first(values: Float64, count: int) -> Float64:
    """The sum of the first values of each row; added in this order, it does not depend on that of the updates."""
    with np.errstate(over="ignore"):
        sums: Float64 = np.add.reduce(np.ascontiguousarray(values[:, :count]), axis=1)
    return sums
