"""The fixtures that run `fma` itself."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.servers import migrated
from tests.servers.fma import FmaInstall, StartFma

pytestmark = pytest.mark.processes


def test_server_is_ready_and_knows_its_users(fma_server: StartFma) -> None:
    server = fma_server()

    developer = server.install.add_user("developer")

    assert server.status_of("/readyz") == 200
    answer = httpx.get(f"{server.base_url}/api/v1/me/", headers=developer.headers, trust_env=False)
    assert (answer.status_code, answer.json()["id"]) == (200, developer.id)
    assert server.process.stop() == 0
    assert server.status_of("/healthz") == 0


def test_a_benchmark_measures_servers_with_the_kernels_that_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(migrated.FOLDER)
    monkeypatch.delenv("PYTHONPATH", raising=False)

    assert "PYTHONPATH" not in FmaInstall(tmp_path).env


def test_parts_run_apart_and_a_killed_worker_leaves_nothing(fma_install: FmaInstall) -> None:
    fma_install.migrate()
    web = fma_install.start_web()
    assert web.status_of("/readyz") == 503  # no worker was seen

    worker = fma_install.start_worker()
    web.wait_until_ready()
    worker.kill()

    assert worker.members() == set()
    assert web.status_of("/healthz") == 200
