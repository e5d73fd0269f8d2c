"""Targets of a real server over bare sockets: heads, lengths and chunks that no client library would send."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from fma_core.arrays.codecs.safetensors import encode
from tests.fuzz.campaign import Fault, Target
from tests.fuzz.installation import SETTINGS
from tests.fuzz.mutations import TEXTS, mutated_bytes, one_of
from tests.fuzz.stack import UPDATES, Request, Stack, request_of, require_nothing_left, require_readable
from tests.servers.fma import FmaInstall, FmaServer
from tests.servers.process import ServerProcess

ANSWER_S = 15.0
STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3})", re.MULTILINE)
BROKEN_HEAD = re.compile(
    rb"[^\r\n]*[\x00-\x1f\x7f][^\r\n]+\r\n|.*?[\x00-\x08\x0b\x0c\x0e-\x1f\x7f].*?\r\n\r\n", re.DOTALL
)
"""Control characters, for which granian hangs up while more is sent: its 400 may be lost."""
CODE = re.compile(rb'"code":"(\w+)"')
GROWN_MIB = 300
KINDS = ("json", "filters", "uploads", "headers", "tokens", "invitations")
LENGTHS = (
    "0",
    "-1",
    "+5",
    "5 ",
    "0x5",
    "5, 5",
    "5, 6",
    "",
    "1e3",
    "²",
    "9" * 19,
    "9" * 40,
    str(2**63),
    "\t7",
)
SIZES = (
    b"zz",
    b"-1",
    b"f" * 15,
    b"f" * 20,
    b"",
    b" 5",
    b"5 ",
    b"0x5",
    b"5;a=b",
    b"5;" + b"x" * 5000,
    b"\x00",
    b"05",
)
TRAILERS = (b"", b"x: y\r\n", b"content-length: 5\r\n", b"x" * 9000 + b": y\r\n")
LINES = (
    b"GET /healthz HTTP/1.1", b"GET /healthz HTTP/1.0", b"GET /healthz HTTP/9.9", b"GET /healthz", b"PRI * HTTP/2.0",
    b"GET  /healthz HTTP/1.1", b"GET http://localhost/healthz HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET healthz HTTP/1.1",
    b"CONNECT localhost:80 HTTP/1.1", b"get /healthz HTTP/1.1", b"GET /healthz\x00 HTTP/1.1", b"GET /\xff\xfe HTTP/1.1",
    b"GET /%00%ff HTTP/1.1", b"GET /" + b"a" * 70_000 + b" HTTP/1.1", b"GET /?" + b"a=b&" * 5000 + b" HTTP/1.1",
    b"\r\n\r\nGET /healthz HTTP/1.1", b"GET //evil.example/%2e%2e/ HTTP/1.1", b"\x16\x03\x01\x02\x00\x01\x00\x01",
    b"GET /healthz HTTP/1.1\r\nGET /admin/ HTTP/1.1",
)  # fmt: skip
FIELDS = (
    b"Host: localhost", b"Host: a\r\nHost: b", b"Host:", b"host : localhost", b"X Y: z", b"X_Y: z", b"client_uuid: x",
    b": x", b"X: a\r\n b", b"X: a\r\n\tb", b"X: \x00", b"X: \xff\xfe", b"X: " + b"y" * 100_000, b"\r", b"X",
    b"Connection: upgrade, close", b"Upgrade: websocket\r\nConnection: Upgrade", b"Upgrade: h2c\r\nConnection: Upgrade",
    b"TE: trailers", b"Expect: 100-continue", b"Expect: nonsense", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b"Content-Length: 5", b"Cookie: a=b; c",
    b"Content-Length: 5\r\nContent-Length: 6", b"X-Forwarded-For: 1.2.3.4, \xff", b"Range: bytes=0-1,2-3",
    b"\r\n".join(b"X%d: y" % number for number in range(150)),
)  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """The bytes of a connection. is_whole: whether an answer must come; otherwise the client stops sending there."""

    data: bytes
    is_whole: bool = True
    piece: int = 2**20


def sent(random: Random, request: Request) -> Sent:
    """A request as bytes, at times with a head, a length or chunks that are wrong."""
    fields = {"host": "localhost", "connection": "close", **request.headers}
    body, is_whole = request.body, "content-length" not in request.headers
    if body and is_whole:
        fields["content-length"] = str(len(body))
    return one_of(
        random,
        (
            4,
            lambda: Sent(
                _written(request, fields) + body, is_whole, random.choice((1, 7, 100, 2**20, 2**20))
            ),
        ),
        (2, lambda: _with_length(random, request, fields)),
        (3, lambda: _in_chunks(random, request, fields)),
        (2, lambda: Sent(random.choice(LINES) + b"\r\n" + _fields(fields) + b"\r\n" + body, False)),
        (3, lambda: _with_fields(random, request, fields)),
        (2, lambda: Sent(mutated_bytes(random, _written(request, fields)) + body, False)),
        (1, lambda: Sent(_cut(random, _written(request, fields) + body), False)),
        (1, lambda: Sent((_written(request, {**fields, "connection": "keep-alive"}) + body) * 3, False)),
    )


def _written(request: Request, fields: dict[str, str]) -> bytes:
    target = f"{request.path}?{request.query}" if request.query else request.path
    return f"{request.method} {target} HTTP/1.1\r\n".encode() + _fields(fields) + b"\r\n"


def _fields(fields: dict[str, str]) -> bytes:
    return b"".join(f"{name}: {value}\r\n".encode("latin-1", "replace") for name, value in fields.items())


def _with_length(random: Random, request: Request, fields: dict[str, str]) -> Sent:
    length = random.choice(
        [*LENGTHS, *(str(max(len(request.body) + more, 0)) for more in (-1, 1, 100, 10**6))]
    )
    return Sent(_written(request, {**fields, "content-length": length}) + request.body, False)


def _in_chunks(random: Random, request: Request, fields: dict[str, str]) -> Sent:
    """The body in chunks, of which one may be wrong."""
    others = {name: value for name, value in fields.items() if name != "content-length"}
    if random.random() < 0.1:
        others["content-length"] = str(len(request.body))
    if random.random() < 0.2:
        others["trailer"] = "x"
    body = request.body or random.choice((b"", b"x" * 70_000, random.choice(TEXTS).encode(errors="replace")))
    step = random.choice((1, 10, 1000, 10**6)) if len(body) < 5000 else 10**5
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    sizes = [f"{len(piece):x}".encode() for piece in pieces]
    is_whole = True
    if pieces and random.random() < 0.4:
        sizes[random.randrange(len(sizes))], is_whole = random.choice(SIZES), False
    end = b"\r\n" if random.random() < 0.95 else random.choice((b"\n", b"", b"\r"))
    data = b"".join(
        size + b"\r\n" + piece + (b"\r\n" if end == b"\r\n" else end)
        for size, piece in zip(sizes, pieces, strict=True)
    )
    if random.random() < 0.9:
        data += b"0\r\n" + random.choice(TRAILERS) + b"\r\n"
    else:
        is_whole = False
    return Sent(
        _written(request, {**others, "transfer-encoding": "chunked"}) + data, is_whole and end == b"\r\n"
    )


def _with_fields(random: Random, request: Request, fields: dict[str, str]) -> Sent:
    line, _, rest = _written(request, fields).partition(b"\r\n")
    more = b"\r\n".join(random.sample(FIELDS, random.choice((1, 1, 2))))
    return Sent(line + b"\r\n" + more + b"\r\n" + rest + request.body, False)


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def ask(port: int, made: Sent) -> str:
    """The statuses that the server answers, and the code of a problem. Raises Fault for a 5xx, and for no answer."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as connection:
        try:
            for start in range(0, len(made.data), made.piece if len(made.data) < 10**4 else 2**20):
                connection.sendall(
                    made.data[start : start + (made.piece if len(made.data) < 10**4 else 2**20)]
                )
            if not made.is_whole:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        except TimeoutError:
            raise Fault(f"no answer in {ANSWER_S:g} s, after {answer[:200]!r}") from None
        except OSError:  # closed before all was sent, or read: an answer may have come before
            pass
    statuses = [int(status) for status in STATUS.findall(answer)]
    if any(status >= 500 for status in statuses):
        raise Fault(f"{statuses}: {answer[:600]!r}")
    if made.is_whole and not statuses and not BROKEN_HEAD.match(made.data):
        raise Fault(f"a whole request was not answered: {answer[:200]!r}")
    code = CODE.search(answer)
    return f"{statuses[0] if statuses else 'closed'}{f' {code[1].decode()}' if code else ''}"


@contextmanager
def running() -> Iterator[FmaServer]:
    """`fma web` on the installation of this process."""
    env = {name: value for name, value in os.environ.items() if name.startswith("FMA_")}
    # Its errors are read afterwards.
    with FmaInstall(Path(env["FMA_DATA_DIR"]), {**SETTINGS, **env, "FMA_LOG_LEVEL": "ERROR"}) as install:
        yield install.start_web()


def socket_targets(storage: Path, server: FmaServer) -> tuple[list[Target], Callable[[], None]]:
    """A target for each kind of request, and the look at the server and at what is left."""
    stack = Stack()
    stack.renew()
    port = int(server.base_url.rpartition(":")[2])
    before_mib = peak_mib(server.process)

    def make(kind: str) -> Callable[[Random], Sent]:
        return lambda random: sent(random, request_of(random, stack, kind))

    def look() -> None:
        try:
            require_sound(server, stack, port)
            if peak_mib(server.process) - before_mib > GROWN_MIB:
                raise Fault(f"the server took {peak_mib(server.process) - before_mib} MiB more than before")
            require_readable(stack)
            _until_nothing_is_left(storage)
        finally:
            stack.renew()

    shares = {"json": 2, "filters": 1, "uploads": 3, "headers": 2, "tokens": 1, "invitations": 1}
    targets = [
        Target(f"{kind}/sockets", make(kind), lambda made: ask(port, made), shares[kind]) for kind in KINDS
    ]
    return targets, look


def require_sound(server: FmaServer, stack: Stack, port: int) -> None:
    """Require that the server is as it was: answering, all places for large bodies free, and no error in its log."""
    if server.status_of("/healthz") != 200:
        raise Fault("/healthz does not answer 200")
    assert stack.world is not None
    file = encode({"w": np.ones(20_000)})
    headers = {
        **stack.credentials["registered"],
        "content-type": "application/vnd.safetensors",
        "connection": "close",
    }
    for _ in range(12):  # more than one address has
        query = f"federated_model={stack.world.model.pk}"
        request = Request("POST", UPDATES, query, {**headers, "content-length": str(len(file))}, file)
        status = ask(port, Sent(_written(request, {"host": "localhost", **request.headers}) + file))
        if status.startswith(("429", "503", "closed")):
            raise Fault(f"a large body is answered {status}: its place was never given back")
    errors = [line for line in server.process.log.read_text(errors="replace").splitlines() if "error" in line]
    told = [line for line in errors if "/readyz" not in line]
    if told:
        raise Fault(f"the log tells of {len(told)} errors: {told[:3]}")


def _until_nothing_is_left(storage: Path) -> None:
    """A request whose sender has gone may still be in its thread."""
    until = time.monotonic() + 15
    while True:
        try:
            return require_nothing_left(storage)
        except Fault:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def peak_mib(process: ServerProcess) -> int:
    """The most memory that one process of the server has held."""
    found = [
        re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()) for pid in process.members()
    ]
    return max(int(match[1]) // 1024 for match in found if match)
