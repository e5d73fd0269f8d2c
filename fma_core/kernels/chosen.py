"""Which kernels run: the compiled ones where numba is installed, else numpy's. Both give the same bits."""

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
    """raw: of any floating-point dtype that weights may have. scratch: float64, at least as long as a row."""

    # How many rows make `add_scaled_rows` fastest. No bit depends on it.
    ROWS_AT_ONCE: int

    def set_scaled(self, total: Float64, raw: NDArray[Any], weight: float) -> None: ...

    def add_scaled(self, total: Float64, raw: NDArray[Any], weight: float, scratch: Float64) -> None: ...

    def add_scaled_rows(
        self, total: Float64, raw: NDArray[Any], weights: Float64, scratch: Float64
    ) -> None: ...

    @property
    def sort_rows(self) -> SortRows | None:
        """Sorts columns by comparators, and gives some of their ranks; None: nothing is faster than numpy's sort."""


@cache
def implementation() -> ScaledRows:
    """The module with the kernels to use, found at the first call."""
    try:
        from fma_core.kernels import compiled
    except ImportError:
        # Not installed, or older than this numpy, which numba refuses with the same error.
        return scaled_rows
    return compiled


def load() -> None:
    """What the first fold would load (of the compiled kernels those for float32), for all processes that are forked
    from this one: it takes them a second and 140 MB each."""
    total, raw = np.zeros(1), np.zeros((1, 1), np.float32)
    set_scaled(total, raw[0], 1.0)
    add_scaled_rows(total, raw, np.zeros(1), np.zeros(1))


def set_scaled(total: Float64, raw: NDArray[Any], weight: float) -> None:
    """total = weight · raw in float64; raw itself, down to the sign of a zero, when the weight is 1."""
    implementation().set_scaled(total, raw, weight)


def add_scaled(total: Float64, raw: NDArray[Any], weight: float, scratch: Float64) -> None:
    """total += weight · raw, the product rounded to float64 before it is added.

    raw: (columns,) of any floating-point dtype. scratch: float64, `columns` or longer; what it holds is lost.
    """
    implementation().add_scaled(total, raw, weight, scratch)


def add_scaled_rows(total: Float64, raw: NDArray[Any], weights: Float64, scratch: Float64) -> None:
    """total += weights[i] · raw[i], row after row: the same bits as `add_scaled` for one after the other."""
    implementation().add_scaled_rows(total, raw, weights, scratch)
