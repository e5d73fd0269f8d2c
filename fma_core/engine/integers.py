"""The exact weighted mean and the exact median of integers and booleans, rounded half to even."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fma_core.arrays import dtypes

# Up to this total weight every sum below fits into 64 bits; beyond it, Python's own integers are used, slower.
MAX_TOTAL_WEIGHT = 2**31 - 1


def integer_mean(
    read_row: Callable[[int], NDArray[Any]], weights: Sequence[int], *, dtype: str, num_columns: int
) -> NDArray[Any]:
    """Σ weights[i] · row i / Σ weights, exact before it is rounded: float64 would lose integers beyond 2**53.

    read_row: row i in its own dtype (booleans as 0 and 1), valid until the next is read.
    weights: integers of 0 or more with a sum above 0, in lowest terms.
    """
    total_weight = sum(weights)
    if total_weight > MAX_TOTAL_WEIGHT:
        mean = _mean_of_python_integers(read_row, weights, total_weight, num_columns)
    else:
        mean = _mean_of_halves(read_row, weights, total_weight, num_columns)
    return mean.astype(dtypes.NUMPY_DTYPES[dtype])


def integer_median(matrix: NDArray[Any], *, dtype: str) -> NDArray[Any]:
    """The middle value of each column, or the mean of the two middle ones.

    matrix: (rows, columns) in the rows' own dtype (booleans as 0 and 1); it is sorted in place.
    """
    matrix.sort(axis=0)
    lower, upper = matrix[(len(matrix) - 1) // 2], matrix[len(matrix) // 2]
    # Their difference may overflow the dtype; their common bits and their different bits never do.
    mean: NDArray[Any] = (lower & upper) + ((lower ^ upper) >> 1)
    mean += (lower ^ upper) & mean & 1
    return mean.astype(dtypes.NUMPY_DTYPES[dtype])


def _mean_of_halves(
    read_row: Callable[[int], NDArray[Any]], weights: Sequence[int], total_weight: int, num_columns: int
) -> NDArray[Any]:
    # A value is high · 2**32 + low. Both weighted sums fit: |high| ≤ 2**32, low < 2**32, total_weight < 2**31.
    high_sum = np.zeros(num_columns, np.int64)
    low_sum = np.zeros(num_columns, np.int64)
    is_unsigned = True
    for index, weight in enumerate(weights):
        row = read_row(index)
        is_unsigned = row.dtype.kind == "u"
        if row.dtype.itemsize == 8:
            high_sum += (row >> 32).astype(np.int64) * weight
            low_sum += (row & 0xFFFFFFFF).astype(np.int64) * weight
        else:
            # Small values need no halves, and their sums are less than 2**32 · 2**31.
            low_sum += row.astype(np.int64) * weight
    # Long division in base 2**32. The carry keeps `low` within 0 … 2**32 · total_weight, and everything in 64 bits.
    high, remainder = np.divmod(high_sum + low_sum // 2**32, total_weight)
    low, remainder = np.divmod(remainder * 2**32 + low_sum % 2**32, total_weight)
    twice = 2 * remainder
    low += (twice > total_weight) | ((twice == total_weight) & (low % 2 == 1))
    if is_unsigned:
        return (high.astype(np.uint64) << np.uint64(32)) + low.astype(np.uint64)
    return (high << 32) + low


def _mean_of_python_integers(
    read_row: Callable[[int], NDArray[Any]], weights: Sequence[int], total_weight: int, num_columns: int
) -> NDArray[Any]:
    total = np.zeros(num_columns, object)
    for index, weight in enumerate(weights):
        total += read_row(index).astype(object) * weight
    mean, remainder = total // total_weight, total % total_weight
    twice = 2 * remainder
    rounded: NDArray[Any] = mean + ((twice > total_weight) | ((twice == total_weight) & (mean % 2 == 1)))
    return rounded
