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
from contextlib import ExitStack
from dataclasses import dataclass, field

RECEIVE_BYTES = 65536
SILENCE_S = 60.0
END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"
CHUNKED = b"\r\ntransfer-encoding: chunked"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class Answers:
    """latencies_s and bodies: in the order of the requests."""

    seconds: float
    statuses: Counter[int]
    latencies_s: list[float] = field(repr=False)
    bodies: list[bytes] = field(repr=False)

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
    """Send them all and wait for all answers. Raises ConnectionError when the server hangs up."""
    latencies = [0.0] * len(requests)
    bodies = [b""] * len(requests)
    statuses: Counter[int] = Counter()
    coming = iter(enumerate(requests))
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        lines = [stack.enter_context(_Line(port)) for _ in range(min(connections, len(requests)))]
        gc.disable()
        stack.callback(gc.enable)
        started = time.perf_counter()
        for line in lines:
            selector.register(line.socket, selectors.EVENT_READ, line)
            line.send(*next(coming))
        left = len(requests)
        while left:
            ready = selector.select(SILENCE_S)
            if not ready:
                raise ConnectionError(f"no answer for {SILENCE_S:g} s")
            for key, _ in ready:
                line = key.data
                if not line.receive():
                    continue
                latencies[line.number] = time.perf_counter() - line.sent_at
                statuses[line.status] += 1
                bodies[line.number] = line.body
                left -= 1
                following = next(coming, None)
                if following is not None:
                    line.send(*following)
        seconds = time.perf_counter() - started
    return Answers(seconds, statuses, latencies, bodies)


class _Line:
    """A connection with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = -1
        self.sent_at = 0.0
        self._answer = b""

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, number: int, data: bytes) -> None:
        self.number, self._answer = number, b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(data)

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
