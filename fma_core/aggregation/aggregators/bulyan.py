"""Bulyan: Krum picks most of the updates; each coordinate is the mean of their values nearest to the median.

Source: El Mhamdi et al. 2018, arXiv:1802.07927, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fma_core import kernels
from fma_core.aggregation.aggregators.aggregator import Aggregator, Block, Float64, Rows, aggregators
from fma_core.aggregation.aggregators.attackers import Attackers
from fma_core.aggregation.aggregators.distances import squared_distances, too_far_apart
from fma_core.aggregation.aggregators.krum import sorted_neighbours, sums_of_first
from fma_core.aggregation.aggregators.ties import Contents, best_rows, contents_of


@aggregators.register("bulyan")
@dataclass(frozen=True)
class Bulyan(Aggregator[tuple[int, ...]]):
    """The mean, in each coordinate, of the n − 4f values nearest to the median, among n − 2f updates that Krum picks.

    Of equal scores, Krum picks the update whose next distances are smaller. The order of the updates plays no part.

    >>> import numpy as np
    >>> from fma_core.in_memory import fold_arrays
    >>> updates = [{"w": np.array([value])} for value in (1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 900.0)]
    >>> fold_arrays(Bulyan(f=1), updates)["w"]
    array([2.])
    """

    source: ClassVar[str] = "El Mhamdi et al. 2018, arXiv:1802.07927"
    minimum: ClassVar[str] = "4·f + 3"
    needs_matrix: ClassVar[bool] = True
    is_translation_equivariant: ClassVar[bool] = True
    measures_distances: ClassVar[bool] = True

    f: Attackers

    @property
    def min_updates(self) -> int:
        return 4 * self.f + 3

    def measure(self, rows: Rows) -> tuple[int, ...]:
        squared = squared_distances(rows.gram())
        return krum_picks(squared, count=rows.num_rows - 2 * self.f, f=self.f, contents=contents_of(rows))

    def combine(self, block: Block, decision: tuple[int, ...]) -> Float64:
        ordered = block.order_statistics(rows=decision)
        return kernels.mean_nearest_median_of_ordered(ordered, len(decision) - 2 * self.f)


def krum_picks(squared: Float64, *, count: int, f: int, contents: Contents) -> tuple[int, ...]:
    """The rows that Krum picks one after another, each from the remaining ones; in the order of the rows.

    Krum looks at the r − f − 2 nearest neighbours among r rows. Too few rows remain for the last picks: they look at
    one neighbour, if there is one. contents: as in `best_rows`.
    """
    num_rows = len(squared)
    values, order = sorted_neighbours(squared)
    del squared  # 8 MB for 1000 rows, not needed any more
    left = np.arange(num_rows)
    for _ in range(count):
        num_neighbours = max(1, len(left) - f - 2) if len(left) > 1 else 0
        scores = sums_of_first(values, num_neighbours)
        [best] = best_rows(scores, 1, values[:, num_neighbours:], partial(_contents_of, left, contents))
        if np.isinf(scores[best]):
            raise too_far_apart()
        # Removed from the sorted arrays: sorting again for every pick took 30 s for 1000 updates.
        is_kept = order != left[best]
        is_kept[best] = False
        left = np.delete(left, best)
        values = values[is_kept].reshape(len(left), len(left))
        order = order[is_kept].reshape(len(left), len(left))
    return tuple(sorted({*range(num_rows)} - {*left.tolist()}))


def _contents_of(left: NDArray[np.intp], contents: Contents) -> Float64:
    return contents()[left]
