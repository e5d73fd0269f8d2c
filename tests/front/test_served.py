"""The front as it runs: one real HTTP server, spoken to over bare sockets."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import cycle
from math import ceil
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from fma_api.front.waiting_room import PER_CLIENT
from fma_core.arrays.codecs.safetensors import decode
from tests.api.callers import SAFETENSORS
from tests.servers.fma import FmaInstall, FmaServer, User

pytestmark = [pytest.mark.processes, pytest.mark.slow]

WAITERS = 200
THREADS = 4
# The log says who waits when it says all.
ENV = {"FMA_WEB_THREADS": str(THREADS), "FMA_LOG_LEVEL": "DEBUG"}
# Of granian, its parent process, the event loop and the one that hears wake-ups.
OTHER_THREADS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FmaServer]:
    with FmaInstall(tmp_path_factory.mktemp("front") / "fma-data", ENV) as install:
        install.migrate()
        yield install.start_web()


@pytest.fixture(scope="module")
def developer(server: FmaServer) -> User:
    return server.install.add_user("developer")


@pytest.fixture
def device(server: FmaServer, developer: User) -> tuple[int, str]:
    """A paused model, and the credential of a client of it."""
    made = httpx.post(
        f"{server.base_url}/api/v1/models/",
        json={
            "name": "m",
            "aggregator": "mean",
            "allow_aggregation": False,
            "initial_model": {"w": [1.0, 2.0]},
        },
        headers=developer.headers,
    ).raise_for_status()
    model = made.json()["id"]
    return model, register(server, model)


def register(server: FmaServer, model: int) -> str:
    registered = httpx.post(f"{server.base_url}/api/v1/models/{model}/register_client/").raise_for_status()
    return str(registered.json()["uuid"])


class Connection:
    """Requests written by hand."""

    def __init__(self, server: FmaServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", int(server.base_url.rpartition(":")[2])), 20)
        self._file = self._socket.makefile("rb")

    def say(self, line: str, *headers: str, body: bytes = b"") -> "Connection":
        head = "\r\n".join((f"{line} HTTP/1.1", "Host: localhost", *headers, "", ""))
        self._socket.sendall(head.encode() + body)
        return self

    def say_more(self, body: bytes) -> None:
        self._socket.sendall(body)

    def say_no_more(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def hear(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().decode().strip():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        size = int(headers.get("content-length", 0)) if has_body else 0
        return status, headers, self._file.read(size)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def connection(server: FmaServer) -> Iterator[Connection]:
    opened = Connection(server)
    yield opened
    opened.close()


@contextmanager
def waiting(server: FmaServer, count: int) -> Iterator[None]:
    """So many more come to wait in the block, and do so when it ends."""
    before = server.process.log_text().count("request_waits")
    yield
    server.process.wait_until(
        lambda: server.process.log_text().count("request_waits") >= before + count, f"{count} wait"
    )


def num_threads(server: FmaServer) -> int:
    """The sum over all its processes."""
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in server.process.members())


def num_connections(server: FmaServer) -> int:
    """To its database, which is a file that each connection has open."""
    opened = [link for pid in server.process.members() for link in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(link.readlink().name == "fma.sqlite3" for link in opened)


def test_many_who_wait_hold_no_thread_and_are_all_answered(
    server: FmaServer, developer: User, device: tuple[int, str]
) -> None:
    model = device[0]
    join = f"POST /api/v1/models/{model}/join/?wait=50"
    start = f"{server.base_url}/api/v1/models/{model}/start/"
    devices = [register(server, model) for _ in range(ceil(WAITERS / PER_CLIENT))]
    with ExitStack() as opened:
        waiters = [opened.enter_context(closing(Connection(server))) for _ in range(WAITERS)]
        with waiting(server, WAITERS):
            for waiter, uuid in zip(waiters, cycle(devices), strict=False):
                waiter.say(join, f"CLIENT-UUID: {uuid}")

        assert num_threads(server) <= THREADS + OTHER_THREADS
        assert num_connections(server) <= THREADS
        assert server.status_of("/healthz") == 200
        httpx.post(start, headers=developer.headers).raise_for_status()

        answers = [waiter.hear() for waiter in waiters]
        assert sum(json.loads(body)["accepted"] for _, _, body in answers) == WAITERS


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"]
)
@pytest.mark.parametrize("announced", [100, 70_000])
def test_a_body_that_its_sender_ends_early_is_no_fault_of_ours(
    connection: Connection, kind: str, announced: int
) -> None:
    connection.say(
        "POST /api-token-auth/", f"Content-Type: {kind}", f"Content-Length: {announced}", body=b"{}"
    )
    connection.say_no_more()

    status, _, body = connection.hear()

    assert (status, json.loads(body)["code"]) in [(400, "truncated_body"), (413, "too_large")]


def test_weights_are_fetched_whole_in_part_or_not_at_all(
    device: tuple[int, str], connection: Connection
) -> None:
    model, uuid = device
    path, who = f"/api/v1/models/{model}/get_latest_model/", f"CLIENT-UUID: {uuid}"
    binary = f"Accept: {SAFETENSORS}"

    status, headers, whole = connection.say(f"GET {path}", who, binary).hear()
    part = connection.say(f"GET {path}", who, binary, "Range: bytes=8-20").hear()
    same = connection.say(f"GET {path}", who, binary, f"If-None-Match: {headers['etag']}").hear(
        has_body=False
    )
    head = connection.say(f"HEAD {path}", who, binary).hear(has_body=False)

    assert (status, decode(whole)["w"].tolist()) == (200, [1.0, 2.0])
    assert (part[0], part[1]["content-range"], part[2]) == (206, f"bytes 8-20/{len(whole)}", whole[8:21])
    assert same[0] == 304
    assert (head[0], head[1]["content-length"]) == (200, str(len(whole)))


def test_websockets_are_not_spoken_here(server: FmaServer) -> None:
    for _ in range(40):  # more than there are threads
        with closing(Connection(server)) as asked:
            asked.say(
                "GET /healthz", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            )  # fmt: skip
            assert asked.hear()[0] == 200


def test_requests_may_come_before_the_answers(connection: Connection) -> None:
    for _ in range(3):
        connection.say("GET /healthz")

    assert [connection.hear()[0] for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("name", ["é", "Ж", "\u200b", "\U0001f600", "a%20b"])
def test_a_query_need_not_be_escaped(connection: Connection, developer: User, name: str) -> None:
    said = [f"{header}: {value}" for header, value in developer.headers.items()]

    connection.say(f"GET /api/v1/models/?{name}=1", *said)

    status, _, body = connection.hear()
    assert (status, list(json.loads(body)["errors"])) == (400, [unquote(name)])


@pytest.mark.parametrize(("model_of", "status"), [(lambda model: model, 100), (lambda model: 0, 400)])
def test_an_update_that_is_refused_need_not_be_sent(
    device: tuple[int, str], connection: Connection, model_of: Callable[[int], int], status: int
) -> None:
    model, uuid = device
    connection.say(
        f"POST /api/v1/model_updates/?federated_model={model_of(model)}",
        f"CLIENT-UUID: {uuid}", f"Content-Type: {SAFETENSORS}", "Content-Length: 100000", "Expect: 100-continue",
    )  # fmt: skip

    assert connection.hear()[0] == status


BEGUN = b"%x\r\n%s\r\n" % (70_000, b" " * 70_000)
"""A body in chunks that is not small, and does not end."""


def test_a_large_chunked_body_is_refused(device: tuple[int, str], connection: Connection) -> None:
    connection.say(
        f"POST /api/v1/model_updates/?federated_model={device[0]}",
        f"CLIENT-UUID: {device[1]}", f"Content-Type: {SAFETENSORS}", "Transfer-Encoding: chunked", body=BEGUN,
    )  # fmt: skip

    status, headers, _ = connection.hear()
    assert (status, headers["content-type"]) == (411, "application/problem+json")


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


CHUNKED = ("Content-Type: application/json; charset=utf-8", "Transfer-Encoding: chunked")


@pytest.mark.parametrize(("values", "size"), [(2, 7), (2, 10_000), (300_000, 8_000)])
def test_json_in_chunks_is_taken(
    server: FmaServer, developer: User, connection: Connection, values: int, size: int
) -> None:
    made = {"name": "chunked", "aggregator": "mean", "initial_model": {"w": [0.5] * values}}
    who = f"Authorization: Token {developer.token}"
    body = json.dumps(made).encode()
    connection.say("POST /api/v1/models/", who, *CHUNKED, body=chunks(body, size))
    status, _, answer = connection.hear()
    assert status == 201, answer
    model = json.loads(answer)["id"]
    connection.say(f"POST /api/v1/models/{model}/register_client/", "Content-Length: 0")
    uuid = json.loads(connection.hear()[2])["uuid"]

    sent = json.dumps({"federated_model": model, "data": {"w": [1.5] * values}}).encode()
    connection.say("POST /api/v1/model_updates/", f"CLIENT-UUID: {uuid}", *CHUNKED, body=chunks(sent, size))

    status, _, answer = connection.hear()
    assert status == 201, answer
    assert json.loads(answer)["federated_model"] == model


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
def test_a_login_in_chunks_is_read(server: FmaServer, kind: str) -> None:
    password = "a-long-password-1"
    name = f"log{len(kind)}"
    user = server.install.add_user(name, password=password)
    said = {"username": name, "password": password}
    body = json.dumps(said) if kind.endswith("json") else f"username={name}&password={password}"
    # An iterator has no length.
    answer = httpx.post(
        f"{server.base_url}/api-token-auth/", content=iter([body[:5].encode(), body[5:].encode()]),
        headers={"Content-Type": kind},
    )  # fmt: skip
    assert (answer.status_code, answer.json()) == (200, {"token": user.token})


def test_chunks_beyond_the_limit_of_a_body_are_refused(server: FmaServer) -> None:
    answer = httpx.post(
        f"{server.base_url}/api-token-auth/", content=iter([b'{"username": "', b"a" * 20_000, b'"}']),
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_more_chunks_of_a_stranger_are_not_waited_for(
    server: FmaServer, device: tuple[int, str], connection: Connection
) -> None:
    for path in (
        "/api-token-auth/",
        f"/api/v1/models/{device[0]}/register_client/",
    ):  # nobody is asked for a name there
        answer = Connection(server).say(f"POST {path}", *CHUNKED, body=BEGUN)
        assert answer.hear()[0] == 413
        answer.close()
    for path in ("models/", "model_updates/"):
        stranger = "CLIENT-UUID: 00000000-0000-4000-8000-000000000000"
        answer = Connection(server).say(f"POST /api/v1/{path}", stranger, *CHUNKED, body=BEGUN)
        assert answer.hear()[0] == 401
        answer.close()


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=b",
        "MULTIPART/Form-Data;boundary=b",
    ],
)
@pytest.mark.parametrize("path", ["/admin/login/", "/admin/auth/user/1/change/"])
def test_forms_of_strangers_that_stall_hold_no_thread(server: FmaServer, path: str, kind: str) -> None:
    begun = (
        b"username="
        if "urlencoded" in kind
        else b'--b\r\nContent-Disposition: form-data; name="username"\r\n\r\n'
    )
    token = "a" * 32
    head = (f"Content-Type: {kind}", f"Cookie: fma_csrf={token}", "Content-Length: 1000000")
    body = begun + b"a" * 100_000
    stalled = [Connection(server).say(f"POST {path}", *head, body=body) for _ in range(4 * THREADS)]

    answer = httpx.get(f"{server.base_url}/healthz", timeout=5)

    assert answer.status_code == 200
    for connection in stalled:
        connection.close()


@pytest.mark.parametrize("size", [4_000, 4_000_000])
def test_who_breaks_off_does_no_harm(server: FmaServer, device: tuple[int, str], size: int) -> None:
    broken = Connection(server).say(
        f"POST /api/v1/model_updates/?federated_model={device[0]}",
        f"CLIENT-UUID: {device[1]}", f"Content-Type: {SAFETENSORS}", f"Content-Length: {size}", body=bytes(100),
    )  # fmt: skip
    broken.close()

    assert server.status_of("/healthz") == 200
    assert "Traceback" not in server.process.log_text()


def processes_of_json(server: FmaServer) -> set[int]:
    found = set()
    for pid in server.process.members():
        with suppress(OSError):  # it has ended since
            if Path(f"/proc/{pid}/comm").read_text() == "fma json\n":
                found.add(pid)
    return found


def test_large_json_is_parsed_in_a_process_that_may_be_killed_and_left(
    server: FmaServer, developer: User, connection: Connection
) -> None:
    made = {"name": "large", "aggregator": "mean", "initial_model": {"w": [0.5] * 300_000}}
    text = json.dumps(made).encode()
    headers = (
        f"Authorization: Token {developer.token}",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
    )

    def post() -> int:
        return connection.say("POST /api/v1/models/", *headers, body=text).hear()[0]

    assert post() == 201
    (first,) = processes_of_json(server)
    os.kill(first, signal.SIGKILL)
    server.process.wait_until(lambda: not processes_of_json(server), "the process is gone")
    assert post() == 201
    (second,) = processes_of_json(server)
    assert second != first
    for body in (text, text[:-1]):  # who sends them reads no answer
        gone = Connection(server)
        gone.say("POST /api/v1/models/", *headers, body=body)
        gone.close()
    assert post() == 201
    assert processes_of_json(server) == {second}


def test_a_server_that_stops_does_not_wait_for_who_waits(
    server: FmaServer, device: tuple[int, str], connection: Connection
) -> None:
    """The last of this file: it ends the server."""
    model, uuid = device
    with waiting(server, 1):
        connection.say(f"POST /api/v1/models/{model}/join/?wait=50", f"CLIENT-UUID: {uuid}")

    assert server.process.stop(signal.SIGINT, limit_s=5) == 0
    assert connection.hear()[0] == 200
