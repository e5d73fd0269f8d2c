"""Sums of scaled rows in numpy: the reference that the compiled kernels must equal bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# numpy makes one pass over the total for each row.
ROWS_AT_ONCE = 1
# np.sort is the reference.
sort_rows = None


def set_scaled(total: Float64, raw: NDArray[Any], weight: float) -> None:
    """total = weight · raw; raw itself, down to the sign of a zero, when the weight is 1."""
    np.copyto(total, raw)
    if weight != 1.0:
        np.multiply(total, weight, out=total)


def add_scaled(total: Float64, raw: NDArray[Any], weight: float, scratch: Float64) -> None:
    """total += weight · raw; the product is rounded to float64 before it is added."""
    scaled = scratch[: raw.size]
    # Measured: casting first, and then multiplying float64 only, is faster than numpy's casting in the product.
    set_scaled(scaled, raw, weight)
    np.add(total, scaled, out=total)


def add_scaled_rows(total: Float64, raw: NDArray[Any], weights: Float64, scratch: Float64) -> None:
    """total += weights[i] · raw[i], row after row."""
    for row, weight in zip(raw, weights.tolist(), strict=True):
        add_scaled(total, row, weight, scratch)
