"""SHA-256 in a second thread, while the first one reads, checks and writes the same bytes.

Hashing is the slowest step for a large body (0.25 to 0.35 GB/s on a core without SHA instructions), and cannot be
split. On a second core, all other steps fit into its time.
"""

from __future__ import annotations

import hashlib
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import Self

# Enough to send the end of a body of some megabytes to the disk before it is hashed.
WAITING_PIECES = 8


class HashingThread:
    """A hash like hashlib's. `update` returns at once while less than `WAITING_PIECES` wait; pieces must not change.

    A context manager: at its end the thread has ended, even after an error.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._pieces: Queue[bytes | memoryview | None] = Queue(WAITING_PIECES)
        self._error: Exception | None = None
        self._thread = Thread(target=self._hash, name="sha256", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()

    def update(self, piece: bytes | memoryview) -> None:
        """Hash a piece in the thread."""
        self._pieces.put(piece)

    def hexdigest(self) -> str:
        """The hash of all pieces; no more pieces may follow."""
        self._finish()
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def _finish(self) -> None:
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()

    def _hash(self) -> None:
        # Every piece is taken, also after an error: otherwise `update` would wait for ever once the queue is full.
        while (piece := self._pieces.get()) is not None:
            try:
                self._digest.update(piece)
            except Exception as error:  # noqa: BLE001  # raised again by the thread that asks for the digest
                self._error = self._error or error
