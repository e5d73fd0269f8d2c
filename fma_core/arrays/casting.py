"""Float64 values into another floating-point dtype, rounded once to the nearest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fma_core.arrays import dtypes


def cast(values: NDArray[np.float64], dtype: str) -> NDArray[Any]:
    """The nearest values of a floating-point dtype (ties to even); what is beyond its range becomes an infinity."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype == "bfloat16":
            return _to_odd_float32(values).astype(dtypes.NUMPY_DTYPES[dtype])
        return values.astype(dtypes.NUMPY_DTYPES[dtype], copy=False)


def _to_odd_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    # ml_dtypes rounds to float32 first and then again, which can end a bfloat16 away. Rounding to odd in between
    # (towards zero, and the last bit set when anything was lost) keeps what the second rounding must know.
    single = values.astype(np.float32)
    back = single.astype(np.float64)
    bits = single.view(np.uint32)
    bits -= np.abs(back) > np.abs(values)
    bits |= back != values
    return single
