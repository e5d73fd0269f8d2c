"""The body of a request, as Django reads it from its thread."""

import asyncio
import threading
import time
from collections import deque
from typing import Any

from fma_api.front.protocol import Exchange

AHEAD_BYTES = 2 * 2**20
SILENCE_S = 60.0  # then a body that has stalled counts as ended, and its thread is free again
LEAST_BYTES_PER_S = (
    16 * 1024
)  # and so does one that drips, once it has been waited for as long as this many take


class StreamedBody:
    """Reads from the event loop's side what comes, and at most AHEAD_BYTES (and one piece) ahead of its reader.

    Nothing is read before somebody asks for it: only then does a client that sent `Expect: 100-continue` begin to send.
    A body that ends early ends without an error; its announced size tells.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, exchange: Exchange) -> None:
        self._loop = loop
        self._exchange = exchange
        self._changed = threading.Condition(threading.Lock())
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._taken_bytes = 0
        self._waited_s = 0.0
        self._has_begun = False
        self._has_ended = False
        self._paused: asyncio.Future[None] | None = None
        self._reading: asyncio.Task[None] | None = None

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer at the end only."""
        first = self._next(size)
        if len(first) in (0, size):
            return first
        pieces, left = [first], size - len(first)
        while left and (piece := self._next(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def readline(self, size: int) -> bytes:
        """Up to a line's end."""
        line = bytearray()
        while len(line) < size and not line.endswith(b"\n"):
            piece = self._next(size - len(line))
            if not piece:
                break
            end = piece.find(b"\n") + 1
            if end and end < len(piece):
                self._put_back(piece[end:])
                piece = piece[:end]
            line += piece
        return bytes(line)

    def close(self) -> None:
        """No more is read. Called in the loop."""
        with self._changed:
            self._has_ended = True
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()  # as long as somebody reads, granian keeps the connection

    def _next(self, limit: int) -> bytes:
        with self._changed:
            if not self._has_begun:
                self._has_begun = True
                self._loop.call_soon_threadsafe(self._begin)
            while not self._pieces and not self._has_ended:
                self._has_ended = not self._wait()
            if not self._pieces:
                return b""
            piece = self._pieces.popleft()
            if len(piece) > limit:
                self._pieces.appendleft(piece[limit:])
                piece = piece[:limit]
            self._held_bytes -= len(piece)
            self._taken_bytes += len(piece)
            if self._paused is not None and self._held_bytes <= AHEAD_BYTES // 2:
                self._resume()
            return piece

    def _wait(self) -> bool:
        """Whether something came in time. Whoever drips bytes must not keep a thread for hours."""
        patience_s = min(SILENCE_S, SILENCE_S + self._taken_bytes / LEAST_BYTES_PER_S - self._waited_s)
        since = time.monotonic()
        has_changed = self._changed.wait(patience_s) if patience_s > 0 else False
        self._waited_s += time.monotonic() - since
        # Both may have happened.
        return has_changed and not self._has_ended

    def _put_back(self, piece: bytes) -> None:
        with self._changed:
            self._pieces.appendleft(piece)
            self._held_bytes += len(piece)

    def _resume(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            self._loop.call_soon_threadsafe(_go_on, paused)

    def _begin(self) -> None:
        if not self._has_ended:
            self._reading = self._loop.create_task(self._read_ahead())

    async def _read_ahead(self) -> None:
        pieces: Any = self._exchange.__aiter__()
        while True:
            try:
                piece = await pieces.__anext__()
            except Exception:  # granian's own, for a connection that broke
                piece = b""
            with self._changed:
                if not piece or self._has_ended:
                    self._has_ended = True
                    self._changed.notify()
                    return
                self._pieces.append(piece)
                self._held_bytes += len(piece)
                self._changed.notify()
                if self._held_bytes <= AHEAD_BYTES:
                    continue
                paused = self._paused = self._loop.create_future()
            await paused


def _go_on(paused: asyncio.Future[None]) -> None:
    if not paused.done():
        paused.set_result(None)
