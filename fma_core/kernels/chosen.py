"""The choice of kernels: the compiled ones where numba is installed, else numpy's. Both give the same bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fma_core.kernels import scaled_rows

Float64 = NDArray[np.float64]


# matrix, comparators, first rank, result
SortRows = Callable[[NDArray[Any], NDArray[np.uint32], int, NDArray[Any]], None]


class ScaledRows(Protocol):
    """Kernels that scale and add rows.

    raw: of any floating-point dtype that weights may have. scratch: float64, at least as long as a row.
    """

    # The number of rows at which `add_scaled_rows` is fastest. The result does not depend on it.
    ROWS_AT_ONCE: int

    def set_scaled(self, total: Float64, raw: NDArray[Any], weight: float) -> None: ...

    def add_scaled(self, total: Float64, raw: NDArray[Any], weight: float, scratch: Float64) -> None: ...

    def add_scaled_rows(
        self, total: Float64, raw: NDArray[Any], weights: Float64, scratch: Float64
    ) -> None: ...

    @property
    def sort_rows(self) -> SortRows | None:
        """A function that sorts columns by comparators and gives some of their ranks; None: use numpy's sort."""


@cache
def implementation() -> ScaledRows:
    """The module with the kernels to use; the first call imports it."""
    try:
        from fma_core.kernels import compiled
    except ImportError:
        # Not installed, or older than this numpy, which numba refuses with the same error.
        return scaled_rows
    return compiled


def load() -> None:
    """Load the kernels before this process forks (of the compiled ones, those for float32).

    Otherwise each forked process loads them at its first fold, in a second and 140 MB.
    """
    total, raw = np.zeros(1), np.zeros((1, 1), np.float32)
    set_scaled(total, raw[0], 1.0)
    add_scaled_rows(total, raw, np.zeros(1), np.zeros(1))


def set_scaled(total: Float64, raw: NDArray[Any], weight: float) -> None:
    """total = weight · raw in float64; raw itself, down to the sign of a zero, when the weight is 1."""
    implementation().set_scaled(total, raw, weight)


def add_scaled(total: Float64, raw: NDArray[Any], weight: float, scratch: Float64) -> None:
    """total += weight · raw, the product rounded to float64 before it is added.

    raw: (columns,) of any floating-point dtype. scratch: float64, `columns` or longer; it is overwritten.
    """
    implementation().add_scaled(total, raw, weight, scratch)


def add_scaled_rows(total: Float64, raw: NDArray[Any], weights: Float64, scratch: Float64) -> None:
    """total += weights[i] · raw[i], row after row: the same bits as `add_scaled` for each row."""
    implementation().add_scaled_rows(total, raw, weights, scratch)
