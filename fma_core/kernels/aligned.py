"""Arrays that begin at a cache line, so that the widest loads of the processor never cross two lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CACHE_LINE_BYTES = 64


def aligned(buffer: NDArray[np.uint8] | None, size_bytes: int) -> NDArray[np.uint8]:
    """`size_bytes` of a buffer from its first cache line on, or of new memory; the buffer must be one line larger."""
    if buffer is None:
        buffer = np.empty(size_bytes + CACHE_LINE_BYTES, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE_BYTES
    return buffer[start : start + size_bytes]


def aligned_empty(num_values: int, dtype: Any) -> NDArray[Any]:
    dtype = np.dtype(dtype)
    return aligned(None, num_values * dtype.itemsize).view(dtype)


def whole_lines(size_bytes: int) -> int:
    """The size rounded up to whole cache lines."""
    return -(-size_bytes // CACHE_LINE_BYTES) * CACHE_LINE_BYTES
