"""Early writing of a large file to the disk, so that the final sync is short."""

from __future__ import annotations

import os

from fma_core.arrays.codecs.write_all import write_all

BEGIN_BYTES = 2**22


class WriteBehind:
    """A file that the system writes to the disk while it is still being received.

    Otherwise the system begins at the sync, which then takes 70 ms for 100 MB instead of 10 ms.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = self._stop = 0

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write all data; data that does not follow the data before it is not sent to the disk early."""
        write_all(self._fd, data, offset)
        if offset != self._stop:
            return
        self._stop += len(data)
        if self._stop - self._start >= BEGIN_BYTES:
            self.begin()

    def begin(self) -> None:
        """Start to write the remaining data to the disk, without waiting for it."""
        # Linux starts to write the pages that it is advised to drop; it drops no page before it is written.
        if hasattr(os, "posix_fadvise") and self._stop > self._start:
            os.posix_fadvise(self._fd, self._start, self._stop - self._start, os.POSIX_FADV_DONTNEED)
        self._start = self._stop
