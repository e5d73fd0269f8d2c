"""Connections that say nothing keep nobody from being answered."""

import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.servers.fma import FmaInstall

pytestmark = [pytest.mark.processes, pytest.mark.slow]

NUM_IDLE = 3000


def test_three_thousand_idle_connections_block_nobody(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 3 * NUM_IDLE:
        pytest.skip("a process may not open so many files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * NUM_IDLE), hard))
    with FmaInstall(tmp_path / "data") as install, ExitStack() as idle:
        install.migrate()
        server = install.start_web()
        address = urlsplit(server.base_url)
        assert address.hostname
        assert address.port
        for _ in range(NUM_IDLE):
            idle.enter_context(socket.create_connection((address.hostname, address.port)))

        since = time.monotonic()
        assert httpx.get(f"{server.base_url}/healthz", timeout=60).status_code == 200

        # Idle connections are closed after 30 s: whoever waits for that is blocked.
        assert time.monotonic() - since < 10
