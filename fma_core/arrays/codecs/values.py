"""The check of an array's values: finite, and for booleans 0 or 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fma_core.arrays import dtypes
from fma_core.errors import NonFiniteValue, ValueOutOfRange


def first_bad_value(values: NDArray[Any], dtype: str) -> int | None:
    """The index of the first value that weights of this dtype cannot have, or None.

    values: one dimension; booleans are given as uint8.
    """
    if dtype == "bool":
        # Comparing only the largest byte is eight times faster than comparing all.
        if values.size == 0 or values.max() <= 1:
            return None
        return int(np.argmax(values > 1))
    if dtype not in dtypes.FLOATS:
        return None
    finite = is_finite(values, dtype)
    return None if finite.all() else int(np.argmin(finite))


def is_finite(values: NDArray[Any], dtype: str) -> NDArray[np.bool_]:
    """Whether each value of a floating-point dtype is neither NaN nor infinite."""
    if dtype == "bfloat16":
        # By its bits: numpy's isfinite is slow for bfloat16, and warns of signalling NaNs.
        finite: NDArray[np.bool_] = (values.view(np.uint16) & 0x7F80) != 0x7F80
    else:
        finite = np.isfinite(values)
    return finite


def bad_value(array: str, index: int, dtype: str) -> NonFiniteValue | ValueOutOfRange:
    """The error for a value that `first_bad_value` found at a flat index of an array."""
    if dtype == "bool":
        return ValueOutOfRange(
            f"array {array!r} of booleans must hold bytes 0 and 1; value {index} (counted from 0) is neither",
            array=array,
            index=index,
        )
    return NonFiniteValue(
        f"array {array!r} must hold finite numbers; value {index} (counted from 0) is NaN or infinite",
        array=array,
        index=index,
    )


def view_of(data: memoryview, dtype: str) -> NDArray[Any]:
    """View bytes as values, without a copy; booleans as uint8, so that a byte of 2 can be detected."""
    return np.frombuffer(data, dtype=np.uint8 if dtype == "bool" else dtypes.NUMPY_DTYPES[dtype])
