"""A sum of scaled rows that come one at a time; it collects as many as a kernel adds at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fma_core.kernels.aligned import CACHE_LINE_BYTES, aligned, aligned_empty, whole_lines
from fma_core.kernels.chosen import implementation

Float64 = NDArray[np.float64]


class ScaledSum:
    """Σ weight · row in float64, in the order of `add`; its bits depend on that order alone.

    Read a row into `room`, then `add` it with its weight; take the `total` once, at the end.
    buffer: memory for the rows, at least `size_bytes`; the total is never in it.
    """

    def __init__(self, num_columns: int, dtype: Any, buffer: NDArray[np.uint8] | None = None) -> None:
        dtype = np.dtype(dtype)
        self._kernels = implementation()
        self._at_once = self._kernels.ROWS_AT_ONCE
        scratch_bytes = whole_lines(num_columns * 8)
        memory = aligned(buffer, scratch_bytes + self._at_once * num_columns * dtype.itemsize)
        self._scratch: Float64 = memory[: num_columns * 8].view(np.float64)
        self._rows = memory[scratch_bytes:].view(dtype).reshape(self._at_once, num_columns)
        self._weights = np.empty(self._at_once)
        self._num_waiting = 0
        self._total: Float64 | None = None

    @staticmethod
    def size_bytes(num_columns: int, dtype: Any) -> int:
        rows_bytes: int = implementation().ROWS_AT_ONCE * num_columns * np.dtype(dtype).itemsize
        return whole_lines(num_columns * 8) + rows_bytes + CACHE_LINE_BYTES

    @property
    def room(self) -> NDArray[Any]:
        """The place for the next row; it stays the same until the row is added."""
        room: NDArray[Any] = self._rows[self._num_waiting]
        return room

    def add(self, weight: float) -> None:
        """Add weight · the row in `room`."""
        if self._total is None:
            # Set, not added to zeros: 0.0 + -0.0 is 0.0, but a single update must not change.
            self._total = aligned_empty(self._scratch.size, np.float64)
            self._kernels.set_scaled(self._total, self.room, weight)
        elif self._at_once == 1:
            self._kernels.add_scaled(self._total, self.room, weight, self._scratch)
        else:
            self._weights[self._num_waiting] = weight
            self._num_waiting += 1
            if self._num_waiting == self._at_once:
                self._add_waiting(self._total)

    def total(self) -> Float64:
        """The sum; zeros when nothing was added."""
        if self._total is None:
            return np.zeros(self._scratch.size)
        if self._num_waiting:
            self._add_waiting(self._total)
        return self._total

    def _add_waiting(self, total: Float64) -> None:
        waiting = slice(self._num_waiting)
        self._kernels.add_scaled_rows(total, self._rows[waiting], self._weights[waiting], self._scratch)
        self._num_waiting = 0
