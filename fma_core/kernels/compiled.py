"""The kernels that numba compiles (extra `fast`): sums of scaled rows, with the reference's bits, and a sort of rows.

Without fastmath LLVM neither reorders additions nor rounds a product and a sum only once, so the bits are the same.
Importing this module imports numba, which takes half a second; only `chosen` imports it, at the first fold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from fma_core.arrays import dtypes

Float64 = NDArray[np.float64]

# One pass over the total for four rows. Measured (100 × 1M float32 from files, 24K columns): the sum takes 1.5 times as
# long as reading the rows; 2.1 times with one row a pass, 1.6 times with eight.
ROWS_AT_ONCE = 4
# The number of columns that a sorting network sorts at a time, within the second-level cache.
SORT_TILE_COLUMNS = 128
CARRIERS = {dtypes.NUMPY_DTYPES["float16"]: np.int16, dtypes.NUMPY_DTYPES["bfloat16"]: np.uint16}


def set_scaled(total: Float64, raw: NDArray[Any], weight: float) -> None:
    """total = weight · raw; raw itself, down to the sign of a zero, when the weight is 1."""
    _set(total, _for_numba(raw), weight)


def add_scaled(total: Float64, raw: NDArray[Any], weight: float, scratch: Float64) -> None:
    """total += weight · raw; the product is rounded to float64 before it is added. scratch: not used here."""
    _add(total, _for_numba(raw), weight)


def add_scaled_rows(total: Float64, raw: NDArray[Any], weights: Float64, scratch: Float64) -> None:
    """total += weights[i] · raw[i], row after row."""
    _add_rows(total, _for_numba(raw), weights)


def _for_numba(raw: NDArray[Any]) -> NDArray[Any]:
    # numba has no float16 or bfloat16 on a CPU: their bits are passed as two different integer types.
    return raw.view(CARRIERS[raw.dtype]) if raw.itemsize == 2 else raw


def _widen(bits: Any) -> Any:
    """The float64 of a value, or of the bits of a small float."""
    raise NotImplementedError


@overload(_widen)
def _widen_by_type(bits: Any) -> Callable[[Any], Any]:
    if bits == types.uint16:
        return _widen_bfloat16
    if bits == types.int16:
        return _widen_float16
    return _widen_float


def _widen_float(bits: Any) -> Any:
    return np.float64(bits)


def _widen_bfloat16(bits: Any) -> Any:
    # The upper half of a float32.
    return np.float64(np.uint32(np.uint32(bits) << 16).view(np.float32))


def _widen_float16(bits: Any) -> Any:
    # Move sign, exponent and fraction to their places in a float64. The exponent is then too small by 1023 - 15; a
    # multiplication by a power of two corrects it exactly, for denormal numbers too.
    bits = np.uint64(np.uint16(bits))
    magnitude = (bits & np.uint64(0x7FFF)) << np.uint64(42)
    sign = (bits & np.uint64(0x8000)) << np.uint64(48)
    value = np.uint64(magnitude | sign).view(np.float64) * 2.0**1008
    # An infinity or not a number, whose exponent is the largest one in either dtype.
    return (
        np.float64(value)
        if abs(value) < 65536.0
        else np.uint64(magnitude | sign | 0x7FF0000000000000).view(np.float64)
    )


def _set_scaled(total: Any, raw: Any, weight: Any) -> None:
    for column in range(total.size):
        total[column] = weight * _widen(raw[column])


def _add_scaled(total: Any, raw: Any, weight: Any) -> None:
    for column in range(total.size):
        total[column] += weight * _widen(raw[column])


def _add_scaled_rows(total: Any, raw: Any, weights: Any) -> None:
    num_fours = weights.size // 4
    for four in range(num_fours):
        raw0, raw1, raw2, raw3 = raw[4 * four], raw[4 * four + 1], raw[4 * four + 2], raw[4 * four + 3]
        weight0, weight1 = weights[4 * four], weights[4 * four + 1]
        weight2, weight3 = weights[4 * four + 2], weights[4 * four + 3]
        for column in range(total.size):
            value = total[column]
            value += weight0 * _widen(raw0[column])
            value += weight1 * _widen(raw1[column])
            value += weight2 * _widen(raw2[column])
            value += weight3 * _widen(raw3[column])
            total[column] = value
    for row in range(4 * num_fours, weights.size):
        values, weight = raw[row], weights[row]
        for column in range(total.size):
            total[column] += weight * _widen(values[column])


def sort_rows(
    matrix: NDArray[Any], comparators: NDArray[np.uint32], first_rank: int, result: NDArray[Any]
) -> None:
    """Sort the columns of a matrix by the comparators of a network; `result` gets its rows from `first_rank` on.

    matrix, result: C-contiguous, float32 or float64.
    """
    integers = np.dtype(f"i{matrix.itemsize}")
    infinity = np.array(np.inf, matrix.dtype).view(integers)[()]
    all_but_sign = integers.type(np.iinfo(integers).max)
    _sort_bits(matrix.view(integers), all_but_sign, infinity, comparators, first_rank, result.view(integers))


def _sort_bits_of_floats(
    matrix: Any, all_but_sign: Any, infinity: Any, comparators: Any, first_rank: Any, result: Any
) -> None:
    # Sort integers of the same order: for negative numbers all bits but the sign are inverted. LLVM compiles the
    # minimum and maximum of integers to two instructions; of floats to a masked store, which delays the next
    # comparator.
    num_rows, num_columns = matrix.shape
    sign_bit = 8 * matrix.itemsize - 1
    tile = np.empty((num_rows, SORT_TILE_COLUMNS), matrix.dtype)
    for first in range(0, num_columns, SORT_TILE_COLUMNS):
        last = min(first + SORT_TILE_COLUMNS, num_columns)
        for row in range(num_rows):
            values, keys = matrix[row, first:last], tile[row]
            for column in range(values.size):
                bits = values[column]
                magnitude = bits & all_but_sign
                # NaN comes last, as in numpy.
                is_number = magnitude <= infinity
                keys[column] = bits ^ ((bits >> sign_bit) & all_but_sign) if is_number else magnitude
        for index in range(comparators.shape[0]):
            lower, upper = tile[comparators[index, 0]], tile[comparators[index, 1]]
            for column in range(SORT_TILE_COLUMNS):
                value, other = lower[column], upper[column]
                lower[column] = min(value, other)
                upper[column] = max(value, other)
        for rank in range(result.shape[0]):
            keys, values = tile[first_rank + rank], result[rank, first:last]
            for column in range(values.size):
                values[column] = keys[column] ^ ((keys[column] >> sign_bit) & all_but_sign)


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    # Compiled at the first call for a dtype. nogil: the engine's threads run it side by side.
    compile_ = partial(numba.njit, nogil=True, fastmath=False, error_model="numpy")
    compiled: Any
    try:
        compiled = compile_(function, cache=True)
    except RuntimeError:
        # Neither NUMBA_CACHE_DIR nor the package's folder nor the user's folder is writable: each process compiles.
        compiled = compile_(function)
    return compiled  # type: ignore[no-any-return]


_set = _compiled(_set_scaled)
_add = _compiled(_add_scaled)
_add_rows = _compiled(_add_scaled_rows)
_sort_bits = _compiled(_sort_bits_of_floats)
