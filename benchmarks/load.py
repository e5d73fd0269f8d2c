"""Requests over kept connections, one at a time on each, as fast as they are answered.

One thread and bare sockets: it takes about 30 µs for a request, a client library ten times that, which on two cores
would be taken from the server.
"""

from __future__ import annotations

import gc
import selectors
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

RECEIVE_BYTES = 65536
SILENCE_S = 60.0
END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"
CHUNKED = b"\r\ntransfer-encoding: chunked"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class Answers:
    """latencies_s and bodies: in the order of the requests.

    hung_up: how often the server closed a connection before its answer was whole; the request was then sent again.
    """

    seconds: float
    statuses: Counter[int]
    latencies_s: list[float] = field(repr=False)
    bodies: list[bytes] = field(repr=False)
    hung_up: int = 0

    @property
    def per_second(self) -> float:
        return len(self.latencies_s) / self.seconds

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3


def request(
    method: str, target: str, *, headers: dict[str, str] | None = None, body: bytes | None = None
) -> bytes:
    """The bytes of one request to a server on this machine."""
    fields = {"Host": "127.0.0.1", **(headers or {})}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + (body or b"")


def send_all(port: int, requests: Sequence[bytes], *, connections: int) -> Answers:
    """Send them all over new connections, and wait for all answers."""
    with Connections(port, min(connections, len(requests))) as lines:
        return lines.send_all(requests)


class Connections:
    """Open connections in a `with` block. Each has at most one request on its way."""

    def __init__(self, port: int, count: int) -> None:
        self._lines = [_Line(port) for _ in range(count)]

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            line.close()

    def send_all(self, requests: Sequence[bytes]) -> Answers:
        """The first ones go out at once, one on each connection, the others as answers come.

        Raises ConnectionError when the server hangs up again and again, or says nothing for a minute.
        """
        latencies = [0.0] * len(requests)
        bodies = [b""] * len(requests)
        statuses: Counter[int] = Counter()
        hung_up = 0
        coming = iter(enumerate(requests))
        gc.disable()
        try:
            with selectors.DefaultSelector() as selector:
                started = time.perf_counter()
                for line, following in zip(self._lines, coming, strict=False):
                    selector.register(line.socket, line.send(*following), line)
                left = len(requests)
                while left:
                    ready = selector.select(SILENCE_S)
                    if not ready:
                        raise ConnectionError(f"no answer for {SILENCE_S:g} s")
                    for key, events in ready:
                        line = key.data
                        try:
                            if events & selectors.EVENT_WRITE:
                                wanted = line.send_more()
                            elif not line.receive():
                                continue
                            else:
                                latencies[line.number] = time.perf_counter() - line.sent_at
                                statuses[line.status] += 1
                                bodies[line.number] = line.body
                                left -= 1
                                upcoming = next(coming, None)
                                if upcoming is None:
                                    selector.unregister(line.socket)
                                    continue
                                wanted = line.send(*upcoming)
                        except ConnectionError:
                            hung_up += 1
                            if hung_up > len(requests):
                                raise
                            selector.unregister(line.socket)
                            line.close()
                            line.connect()
                            selector.register(line.socket, line.send_again(), line)
                        else:
                            if wanted != key.events:
                                selector.modify(line.socket, wanted, line)
                seconds = time.perf_counter() - started
        finally:
            gc.enable()
        return Answers(seconds, statuses, latencies, bodies, hung_up)


class _Line:
    """One connection. What it waits for next is an event of selectors."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.connect()
        self.number = -1
        self.sent_at = 0.0
        self._request = b""
        self._left = memoryview(b"")
        self._answer = b""

    def connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=SILENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def close(self) -> None:
        self.socket.close()

    def send(self, number: int, data: bytes) -> int:
        self.number, self._request = number, data
        self.sent_at = time.perf_counter()
        return self.send_again()

    def send_again(self) -> int:
        self._answer, self._left = b"", memoryview(self._request)
        return self.send_more()

    def send_more(self) -> int:
        try:
            self._left = self._left[self.socket.send(self._left) :]
        except BlockingIOError:
            return selectors.EVENT_WRITE
        except (
            ConnectionError
        ):  # a server may answer before it has read all, and hang up: the answer is there
            return selectors.EVENT_READ
        return selectors.EVENT_WRITE if self._left else selectors.EVENT_READ

    def receive(self) -> bool:
        """Whether the answer is there as a whole."""
        piece = self.socket.recv(RECEIVE_BYTES)
        if not piece:
            raise ConnectionError(f"the server hung up after {self._answer[:200]!r}")
        self._answer += piece
        end = self._answer.find(END_OF_HEAD)
        if end < 0:
            return False
        head = self._answer[:end].lower()
        if CHUNKED in head:
            return self._answer.endswith(LAST_CHUNK)
        found = head.find(LENGTH)
        length = int(head[found + len(LENGTH) :].split(b"\r\n", 1)[0]) if found >= 0 else 0
        return len(self._answer) - end - len(END_OF_HEAD) >= length

    @property
    def status(self) -> int:
        return int(self._answer[9:12])

    @property
    def body(self) -> bytes:
        return self._answer.partition(END_OF_HEAD)[2]
