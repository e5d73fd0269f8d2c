"""Complete writes with `pwrite`."""

from __future__ import annotations

import os


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all data at an offset; one `pwrite` may write less (at most 2 GiB, or after a signal)."""
    view = memoryview(data)
    while len(view):
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
