"""The body of a request, as Django reads it from its thread."""

import asyncio
import threading
import time
from collections import deque
from typing import Any

from fma_api.front.protocol import Exchange

AHEAD_BYTES = 2 * 2**20
WORTH_BYTES = 128 * 1024
"""A reader is not woken for less. Networks deliver as little as a kilobyte at a time, and each turn takes 0.1 ms."""
SILENCE_S = 60.0  # then a body that has stalled counts as ended, and its thread is free again
# And so does one that drips, once it has been waited for as long as this many take.
LEAST_BYTES_PER_S = 16 * 1024
DROP_BYTES = 64 * 2**20
DROP_S = 10.0  # So much, and so long, is read of a body that was refused.


class StreamedBody:
    """Reads from the event loop's side what comes, and at most AHEAD_BYTES (and one piece) ahead of its reader.

    Nothing is read before somebody asks for it: only then does a client that sent `Expect: 100-continue` begin to send.
    A body that ends early ends without an error; its announced size tells, or `is_broken`.

    begins_with: the bytes that were read of it before. goes_on: their iterator; an exchange has one alone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        exchange: Exchange,
        *,
        begins_with: bytes = b"",
        goes_on: Any = None,
        is_broken: bool = False,
    ) -> None:
        self._loop = loop
        self._exchange = exchange
        self._goes_on = goes_on
        self._changed = threading.Condition(threading.Lock())
        self._pieces = deque([memoryview(begins_with)] if begins_with else [])
        self._held_bytes = len(begins_with)
        self._wanted_bytes = 0
        self._taken_bytes = 0
        self._waited_s = 0.0
        self._came_at = 0.0
        self._has_begun = False
        self._is_dropped = False
        self._has_ended = is_broken
        self.is_broken = is_broken
        """Whether it ended before its end. A body with trailers seems to: granian shows them like a fault."""
        self._paused: asyncio.Future[None] | None = None
        self._reading: asyncio.Task[None] | None = None

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer at the end only."""
        pieces, left = [], size
        while left and (piece := self.read_piece(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def readline(self, size: int) -> bytes:
        """Up to a line's end."""
        line = bytearray()
        while len(line) < size and not line.endswith(b"\n"):
            piece = self._take(size - len(line), least=1)
            if not piece:
                break
            end = bytes(piece).find(b"\n") + 1
            if end and end < len(piece):
                self._put_back(piece[end:])
                piece = piece[:end]
            line += piece
        return bytes(line)

    def read_piece(self, limit: int) -> memoryview:
        """Wait for as many bytes as are worth a look: at most `limit`, and none at the end."""
        return self._take(limit, least=min(limit, WORTH_BYTES))

    async def drop_the_rest(self) -> None:
        """Read on for a while what nobody wants. Called in the loop, when the request has been answered.

        A connection that is closed with bytes unread breaks off the client's sending, and the answer is lost.
        """
        with self._changed:
            if self._has_ended:
                return
            self._is_dropped = True
            self._pieces.clear()
            self._held_bytes = 0
            if not self._has_begun:
                self._has_begun = True
                self._begin()
            self._resume()
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=DROP_S)

    def close(self) -> None:
        """No more is read. Called in the loop."""
        with self._changed:
            self._has_ended = True
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()  # as long as somebody reads, granian keeps the connection

    def _take(self, limit: int, *, least: int) -> memoryview:
        with self._changed:
            if not self._has_begun:
                self._has_begun = True
                self._loop.call_soon_threadsafe(self._begin)
            self._wanted_bytes, asked_at = least, time.monotonic()
            while self._held_bytes < least and not self._has_ended:
                self._has_ended = not self._wait(asked_at)
            taken: list[memoryview] = []
            size = 0
            while self._pieces and size < least:
                piece = self._pieces.popleft()
                if size + len(piece) > limit:
                    self._pieces.appendleft(piece[limit - size :])
                    piece = piece[: limit - size]
                taken.append(piece)
                size += len(piece)
            self._held_bytes -= size
            self._taken_bytes += size
            if self._paused is not None and self._held_bytes <= AHEAD_BYTES // 2:
                self._resume()
        return taken[0] if len(taken) == 1 else memoryview(b"".join(taken))

    def _wait(self, asked_at: float) -> bool:
        """Whether to go on waiting. Whoever drips bytes must not keep a thread for hours."""
        since = time.monotonic()
        silent_s = since - max(asked_at, self._came_at)
        earned_s = (self._taken_bytes + self._held_bytes) / LEAST_BYTES_PER_S
        patience_s = SILENCE_S + min(-silent_s, earned_s - self._waited_s)
        if patience_s <= 0:
            self.is_broken = True
            return False
        self._changed.wait(patience_s)
        self._waited_s += time.monotonic() - since
        return not self._has_ended

    def _put_back(self, piece: memoryview) -> None:
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
        pieces: Any = self._exchange.__aiter__() if self._goes_on is None else self._goes_on
        dropped_bytes = 0
        while True:
            piece = await _next(pieces)
            is_broken = not piece and await _is_broken(pieces)
            with self._changed:
                if not piece or self._has_ended:
                    self._has_ended = True
                    self.is_broken |= is_broken
                    self._changed.notify()
                    return
                if self._is_dropped:
                    dropped_bytes += len(piece)
                    if dropped_bytes > DROP_BYTES:
                        return
                    continue
                self._pieces.append(memoryview(piece))
                self._held_bytes += len(piece)
                self._came_at = time.monotonic()
                if self._held_bytes >= self._wanted_bytes:
                    self._changed.notify()
                if self._held_bytes <= AHEAD_BYTES:
                    continue
                paused = self._paused = self._loop.create_future()
            await paused


async def read_small(
    loop: asyncio.AbstractEventLoop, exchange: Exchange, *, limit: int
) -> bytes | StreamedBody:
    """A body whose length nobody announced: whole when it ends within `limit` bytes, and otherwise as a stream."""
    read = bytearray()
    pieces: Any = exchange.__aiter__()
    while len(read) <= limit:
        piece = await _next(pieces)
        if not piece:
            if await _is_broken(pieces):
                return StreamedBody(loop, exchange, begins_with=bytes(read), is_broken=True)
            return bytes(read)
        read += piece
    return StreamedBody(loop, exchange, begins_with=bytes(read), goes_on=pieces)


async def _next(pieces: Any) -> bytes:
    """The next piece; empty at the end."""
    try:
        piece: bytes = await pieces.__anext__()
    except Exception:  # noqa: BLE001 - granian's own, for a connection that broke
        return b""
    return piece


async def _is_broken(pieces: Any) -> bool:
    """Whether the empty piece before was a fault: granian goes on after one, and not after the end."""
    try:
        await pieces.__anext__()
    except StopAsyncIteration:
        return False
    except Exception:  # noqa: BLE001 - granian's own
        return True
    return True


def _go_on(paused: asyncio.Future[None]) -> None:
    if not paused.done():
        paused.set_result(None)
