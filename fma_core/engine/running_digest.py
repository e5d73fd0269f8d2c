"""The digest of a file that is being written: a thread of its own hashes what is there, beside the work."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

# As much as is worth a thread, and what is hashed at once: it stays in the second-level cache.
MIN_BYTES = 2**20
PIECE_BYTES = 2**18


class RunningDigest:
    """SHA-256 of a file that is written in any order: of its beginning, as far as that has no gap.

    It reads the file again instead of keeping what was written, which would be a whole model where hashing is slower
    than the work. What others write (another machine, say) it does not know of, and hashes at the end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sha256 = hashlib.sha256()
        self._num_hashed = 0
        # Where a piece that was written ends, by its start; only those beyond a gap.
        self._ends: dict[int, int] = {}
        self._num_complete = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wrote(self, start: int, stop: int) -> None:
        """These bytes are in the file, and nobody changes them any more."""
        with self._lock:
            self._ends[start] = stop
            while (end := self._ends.pop(self._num_complete, 0)) > self._num_complete:
                self._num_complete = end
            if self._thread is None and self._num_complete - self._num_hashed >= MIN_BYTES:
                self._thread = threading.Thread(target=self._follow, name="fma-digest", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Hash nothing more beside the work."""
        with self._lock:
            self._num_complete = 0
            thread = self._thread
        if thread is not None:
            thread.join()

    def of_whole_file(self) -> str:
        """To be called after `stop`."""
        with open(self._path, "rb", buffering=0) as file:
            self._hash(file.fileno(), os.fstat(file.fileno()).st_size)
        return self._sha256.hexdigest()

    def _follow(self) -> None:
        with open(self._path, "rb", buffering=0) as file:
            while True:
                with self._lock:
                    stop = self._num_complete
                    if stop - self._num_hashed < MIN_BYTES:
                        self._thread = None
                        return
                self._hash(file.fileno(), min(stop, self._num_hashed + MIN_BYTES))

    def _hash(self, fd: int, stop: int) -> None:
        buffer = memoryview(bytearray(PIECE_BYTES))
        while (left := stop - self._num_hashed) > 0:
            count = os.preadv(fd, [buffer[:left]], self._num_hashed)
            if count == 0:
                return
            self._sha256.update(buffer[:count])
            self._num_hashed += count
