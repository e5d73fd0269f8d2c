"""A stand-in for granian: requests whose bodies come, stall or break, and clients that hang up."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponseBase

from fma_api.front.front import Front
from fma_api.front.protocol import RequestHeaders
from fma_django.wakeups import Listener

WITHIN_S = 10
View = Callable[[HttpRequest], HttpResponseBase]


@dataclass
class Headers:
    """The headers of a request: names in small letters, some perhaps twice."""

    said: list[tuple[str, str]]

    def get(self, key: str, default: Any = None) -> Any:
        return next((value for name, value in self.said if name == key), default)

    def items(self) -> list[tuple[str, str]]:
        return self.said


@dataclass
class Scope:
    method: str = "GET"
    path: str = "/"
    query_string: str = ""
    headers: RequestHeaders = field(default_factory=lambda: Headers([]))
    http_version: str = "1.1"
    scheme: str = "http"
    server: str = "127.0.0.1:8000"
    client: str = "127.0.0.2:50000"


class Exchange:
    """One request. pieces: its body as it arrives; None stands for a client that says no more, and stays."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pieces: Sequence[bytes | None] = ()) -> None:
        self._pieces = list(pieces)
        self._is_iterated = False
        self._hung_up = asyncio.Event()
        self._loop = loop
        self._answered = threading.Event()
        self.taken_bytes = 0
        self.has_been_read = threading.Event()
        self.was_read_unanswered = False
        self.num_watchers = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.file: tuple[Any, ...] = ()

    def __call__(self) -> "asyncio.Task[bytes]":
        async def whole() -> bytes:
            return b"".join([piece async for piece in self])

        return self._loop.create_task(whole())

    def __aiter__(self) -> "Exchange":
        assert not self._is_iterated, "granian gives the iterator once"
        self._is_iterated = True
        return self

    async def __anext__(self) -> bytes:
        self.has_been_read.set()
        self.was_read_unanswered |= not self.is_answered
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.pop(0)
        if piece is None:
            await asyncio.Event().wait()
        self.taken_bytes += len(piece or b"")
        return piece or b""

    async def client_disconnect(self) -> None:
        self.num_watchers += 1
        try:
            await self._hung_up.wait()
        finally:
            self.num_watchers -= 1

    def hang_up(self) -> None:
        self._loop.call_soon_threadsafe(self._hung_up.set)

    def response_empty(self, status: int, headers: Any) -> None:
        self.response_bytes(status, headers, b"")

    def response_bytes(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, {name.lower(): said for name, said in headers}, body
        self._answered.set()

    def response_file(self, status: int, headers: Any, file: str) -> None:
        self.file = (file,)
        # Read beside whoever writes it, for a pipe's ends wait for each other.
        reading = threading.Thread(
            target=lambda: self.response_bytes(status, headers, Path(file).read_bytes()), daemon=True
        )
        reading.start()

    def response_file_range(self, status: int, headers: Any, file: str, start: int, end: int) -> None:
        self.file = (file, start, end)
        self.response_bytes(status, headers, Path(file).read_bytes()[start:end])

    @property
    def is_answered(self) -> bool:
        return self._answered.is_set()

    def wait(self) -> "Exchange":
        """Until it is answered."""
        assert self._answered.wait(WITHIN_S)
        return self


class Handler:
    """In the place of Django's, answering with one view."""

    request_class = WSGIRequest

    def __init__(self, view: View) -> None:
        self.get_response = view


class Silence:
    """A listener that hears nothing, and does not come back to find that out."""

    def wait(self, timeout_s: float) -> frozenset[str]:
        threading.Event().wait()
        return frozenset()


class Running:
    """A front on an event loop in a thread of its own."""

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop) -> None:
        self.front = front
        self.loop = loop

    def begin(
        self,
        *pieces: bytes | None,
        method: str = "GET",
        path: str = "/",
        query: str = "",
        size: int | None = None,
        headers: Sequence[tuple[str, str]] = (),
        client: str = "127.0.0.2:50000",
    ) -> Exchange:
        """A request; size: the announced one, if it is another than that of the pieces."""
        length = sum(len(piece or b"") for piece in pieces) if size is None else size
        said = [("host", "localhost"), *headers]
        if length:
            said.append(("content-length", str(length)))
        exchange = Exchange(self.loop, pieces)
        scope = Scope(method, path, query, Headers(said), client=client)
        asyncio.run_coroutine_threadsafe(self.front.__rsgi__(scope, exchange), self.loop)
        return exchange

    def in_loop(self, act: Callable[[], Any]) -> Any:
        """Call `act` in the loop, and return its result."""

        async def acting() -> Any:
            return act()

        return asyncio.run_coroutine_threadsafe(acting(), self.loop).result(WITHIN_S)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Return when it is so, as the loop sees it."""
        pause = threading.Event()
        for _ in range(WITHIN_S * 100):
            if self.in_loop(is_so):
                return
            pause.wait(0.01)
        raise AssertionError("it did not come to that")


@contextmanager
def running(
    handler: Any, *, threads: int = 2, waiters: int = 10, listen: Callable[[], Any] = Silence
) -> Iterator[Running]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        front = Front(handler, threads=threads, waiters=waiters, listen=listen)
        yield_to = Running(front, loop)
        yield_to.in_loop(lambda: front.start(loop))
        yield_to.until(lambda: front.room.moment == 1)  # it listens
        yield yield_to
    finally:

        def end() -> None:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.call_soon(loop.stop)

        loop.call_soon_threadsafe(end)
        thread.join(WITHIN_S)
        loop.close()


__all__ = ["Exchange", "Handler", "Headers", "Listener", "Running", "Scope", "Silence", "running"]
