"""The front as it runs: one real HTTP server, spoken to over bare sockets."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers.fma import FmaInstall, FmaServer, User

pytestmark = [pytest.mark.processes, pytest.mark.slow]

WAITERS = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FmaServer]:
    with FmaInstall(tmp_path_factory.mktemp("front") / "fma-data") as install:
        install.manage("migrate")
        yield install.start_web()


@pytest.fixture(scope="module")
def developer(server: FmaServer) -> User:
    return server.install.add_user("developer")


@pytest.fixture
def credential(server: FmaServer, developer: User) -> tuple[int, str]:
    """A paused model, and the credential of a client of it."""
    made = httpx.post(
        f"{server.base_url}/api/v1/models/",
        json={"name": "waiting", "aggregator": "mean", "allow_aggregation": False},
        headers=developer.headers,
    ).raise_for_status()
    model = made.json()["id"]
    registered = httpx.post(f"{server.base_url}/api/v1/models/{model}/register_client/").raise_for_status()
    return model, registered.json()["uuid"]


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


def num_threads(server: FmaServer) -> int:
    """Of all its processes."""
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in server.process.members())


def test_many_who_wait_hold_no_thread_and_are_all_answered(
    server: FmaServer, developer: User, credential: tuple[int, str]
) -> None:
    model, uuid = credential
    httpx.get(f"{server.base_url}/healthz")
    before = num_threads(server)
    waiters = [
        Connection(server).say(f"POST /api/v1/models/{model}/join/?wait=50", f"CLIENT-UUID: {uuid}")
        for _ in range(WAITERS)
    ]
    time.sleep(3)
    print(before, num_threads(server))
    t = time.monotonic()
    assert httpx.get(f"{server.base_url}/readyz").status_code == 503
    print("readyz", time.monotonic() - t)
    httpx.post(
        f"{server.base_url}/api/v1/models/{model}/start/", headers=developer.headers
    ).raise_for_status()
    answers = [waiter.hear() for waiter in waiters]
    for waiter in waiters:
        waiter.close()
    print("all", time.monotonic() - t)
    assert {status for status, _, _ in answers} == {200}
    assert sum(json.loads(body)["accepted"] for _, _, body in answers) == WAITERS
