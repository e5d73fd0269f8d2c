"""Order statistics of columns, and the means and medians that the robust rules compute from them.

All results are float64 with positive zeros: a sort may leave 0.0 and -0.0 in either order, but the result must depend
neither on the order of the updates nor on the sorting algorithm.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fma_core.kernels.aligned import CACHE_LINE_BYTES, aligned
from fma_core.kernels.chosen import add_scaled_rows, implementation, set_scaled
from fma_core.kernels.sorting_network import comparators

Float64 = NDArray[np.float64]

PAGE_BYTES = 4096
# The number of values that are sorted or compared at a time, so that they stay in the cache.
TILE_VALUES = 2**17
# The largest number of rows for which a compiled sorting network is faster than numpy's sort.
MAX_NETWORK_ROWS = 256


def padded_matrix(
    rows: int, columns: int, dtype: Any, buffer: NDArray[np.uint8] | None = None
) -> NDArray[Any]:
    """An empty (rows, columns) matrix whose rows are never a multiple of 4 KiB apart.

    With such a distance all values of a column would share one set of the cache, which holds few of them: transposing
    the matrix took four times as long.
    buffer: memory to use, at least `padded_size_bytes`.
    """
    dtype = np.dtype(dtype)
    pitch_bytes = _pitch_bytes(columns, dtype)
    lines = aligned(buffer, rows * pitch_bytes).reshape(rows, pitch_bytes)
    return lines[:, : columns * dtype.itemsize].view(dtype)


def padded_size_bytes(rows: int, columns: int, dtype: Any) -> int:
    return rows * _pitch_bytes(columns, np.dtype(dtype)) + CACHE_LINE_BYTES


def order_statistics(matrix: NDArray[Any], ranks: slice = slice(None)) -> NDArray[Any]:
    """The values of each column in ascending order, all or some neighbouring ranks: (ranks, columns).

    matrix: (rows, columns), float32 or float64; fast when it is a `padded_matrix`.
    """
    rows, columns = matrix.shape
    ranks = slice(*ranks.indices(rows))
    result = np.empty((len(range(rows)[ranks]), columns), matrix.dtype)
    sort_rows = implementation().sort_rows
    if sort_rows is not None and rows <= MAX_NETWORK_ROWS:
        sort_rows(
            np.ascontiguousarray(matrix), comparators(rows, ranks.start, ranks.stop), ranks.start, result
        )
        return result
    # Transposed in tiles: a whole transposed matrix would leave the cache before it is sorted.
    for tile in _tiles(columns, rows):
        part = np.ascontiguousarray(matrix[:, tile].T)
        part.sort(axis=1)
        result[:, tile] = part.T[ranks]
    return result


def middle_ranks(num_rows: int) -> slice:
    """The middle rank, or the two middle ranks of an even number."""
    return slice((num_rows - 1) // 2, num_rows // 2 + 1)


def median_of_ordered(ordered: NDArray[Any]) -> Float64:
    """The median of each column of sorted (ranks, columns); the middle ranks alone are enough."""
    middle: Float64 = ordered[middle_ranks(len(ordered))].astype(np.float64)
    if len(middle) == 1:
        single: Float64 = middle[0] + 0.0
        return single
    lower, upper = middle
    with np.errstate(over="ignore", invalid="ignore"):
        median: Float64 = (lower + upper) * 0.5
    # Only values near the end of float64's range overflow; their halves are exact.
    overflowed = np.isinf(median)
    if overflowed.any():
        median[overflowed] = lower[overflowed] * 0.5 + upper[overflowed] * 0.5
    return np.add(median, 0.0, out=median)


def mean_of_ordered(ordered: NDArray[Any]) -> Float64:
    """The mean of each column of sorted (ranks, columns), added from the smallest value to the largest."""
    count, num_columns = ordered.shape
    total = np.empty(num_columns)
    set_scaled(total, ordered[0], 1.0)
    add_scaled_rows(total, ordered[1:], np.ones(count - 1), np.empty(num_columns))
    return _mean_of(total, count)


def mean_nearest_median_of_ordered(ordered: NDArray[Any], count: int) -> Float64:
    """The mean of the `count` values nearest to the median of each column of sorted (rows, columns).

    They are neighbours; of two values at the same distance the lower one is taken.
    Source: El Mhamdi et al. 2018, arXiv:1802.07927 (Bulyan's last step).
    """
    num_rows, num_columns = ordered.shape
    total = np.zeros(num_columns)
    for tile in _tiles(num_columns, num_rows):
        values = ordered[:, tile].astype(np.float64)
        first = _first_of_nearest(values, median_of_ordered(values), count)
        for rank, row in enumerate(values):
            is_near = (first <= rank) & (rank < first + count)
            total[tile] += np.where(is_near, row, 0.0)
    return _mean_of(total, count)


def _first_of_nearest(values: Float64, median: Float64, count: int) -> NDArray[np.int32]:
    """The first rank of the nearest values in each column."""
    # The window moves up while the value that it gains is strictly nearer than the value that it loses. With each move
    # the next gain is further away and the next loss is nearer, so it is enough to count the moves.
    first = np.zeros(values.shape[1], np.int32)
    with np.errstate(over="ignore"):
        for lost, gained in zip(values[:-count], values[count:], strict=True):
            first += (gained - median) < (median - lost)
    return first


def _mean_of(sums: Float64, count: int) -> Float64:
    np.divide(sums, count, out=sums)
    return np.add(sums, 0.0, out=sums)


def _tiles(num_columns: int, num_rows: int) -> Iterator[slice]:
    width = max(64, TILE_VALUES // num_rows)
    for first in range(0, num_columns, width):
        yield slice(first, first + width)


def _pitch_bytes(columns: int, dtype: np.dtype[Any]) -> int:
    size_bytes = columns * dtype.itemsize
    return size_bytes + CACHE_LINE_BYTES if size_bytes % PAGE_BYTES == 0 else size_bytes
