"""One `pwrite` after the other."""

from __future__ import annotations

import os


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write everything at an offset; one `pwrite` may write less (at most 2 GiB, or a signal came)."""
    view = memoryview(data)
    while len(view):
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
