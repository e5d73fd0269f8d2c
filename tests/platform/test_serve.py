"""`fma serve` as processes: how it starts, and every way in which it can end."""

import json
import os
import signal
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.servers.fma import FmaInstall, FmaServer
from tests.servers.process import ServerProcess

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def command_of(pid: int) -> str:
    """The name that `ps -o comm` shows."""
    return Path(f"/proc/{pid}/comm").read_text().rstrip()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def child_of(serve: ServerProcess, command: str) -> int:
    [pid] = [
        pid for pid in serve.members() if parent_of(pid) == serve.pid and command_of(pid) == f"fma {command}"
    ]
    return pid


def wait_until(is_so: Callable[[], bool], limit_s: float = 10) -> None:
    limit = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.05)


def ready(install: FmaInstall, *, is_new: bool = False) -> FmaServer:
    if not is_new and not (install.data_dir / "fma.sqlite3").exists():
        install.migrate()
    server = install.start_serve()
    server.wait_until_ready()
    return server


def test_the_first_start_makes_all_that_is_needed_and_says_how_to_go_on(fma_install: FmaInstall) -> None:
    fma_install.data_dir.rmdir()
    fma_install.change_env({"FMA_SECRET_KEY": None})

    server = ready(fma_install, is_new=True)
    server.process.wait_until(lambda: "Ctrl-C" in server.process.log_text(), "the welcome")
    said = server.process.log_text()

    assert stat.S_IMODE(fma_install.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((fma_install.data_dir / "secret_key").stat().st_mode) == 0o600
    assert f"fma is ready at {server.base_url}" in said
    assert f"fma user add NAME --data {fma_install.data_dir}" in said
    assert json.loads(fma_install.run("user", "add", "anna", "--staff"))["token"]
    assert server.status_of("/admin/login/") == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything_cleanly(fma_install: FmaInstall, how: signal.Signals) -> None:
    server = ready(fma_install)

    assert server.process.stop(how) == 0
    assert "Traceback" not in server.process.log_text()


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_signal_to_all_processes_at_once_ends_them_as_cleanly(
    fma_install: FmaInstall, command: str
) -> None:
    """As systemd does it. Each process of the worker that died by itself could leave another waiting for it."""
    if command == "serve":
        process = ready(fma_install).process
    else:
        fma_install.migrate()
        process = fma_install.start_worker()
    process.wait_until(lambda: "worker_ready" in process.log_text(), "its worker is ready", limit_s=60)
    for pid in process.members() - {process.pid}:
        with suppress(ProcessLookupError):  # one may end because another has heard the signal
            os.kill(pid, signal.SIGTERM)
    time.sleep(0.3)  # no child has to wait for its parent
    os.kill(process.pid, signal.SIGTERM)

    assert process.wait(limit_s=10) == 0
    assert "worker_stopped" in process.log_text()
    assert "Traceback" not in process.log_text()


def test_it_starts_again_on_the_same_folder(fma_install: FmaInstall) -> None:
    fma_install.change_env({"FMA_SECRET_KEY": None})
    ready(fma_install, is_new=True).process.stop()
    key = (fma_install.data_dir / "secret_key").read_text()

    ready(fma_install)

    assert (fma_install.data_dir / "secret_key").read_text() == key


@pytest.mark.parametrize(("command", "name"), [("web", "the HTTP server"), ("worker", "the worker")])
def test_when_a_child_dies_all_end_and_the_dead_one_is_named(
    fma_install: FmaInstall, command: str, name: str
) -> None:
    serve = ready(fma_install).process

    os.kill(child_of(serve, command), signal.SIGKILL)

    assert serve.wait() == 1
    assert f"{name} ended by signal SIGKILL" in serve.log_text()
    wait_until(lambda: not serve.members())


@pytest.mark.parametrize("command", ["web", "worker"])
def test_when_a_grandchild_that_is_needed_dies_all_end(fma_install: FmaInstall, command: str) -> None:
    serve = ready(fma_install).process
    child = child_of(serve, command)
    [grandchild] = [pid for pid in serve.members() if parent_of(pid) == child]

    os.kill(grandchild, signal.SIGKILL)

    assert serve.wait() == 1
    wait_until(lambda: not serve.members())


def test_kill_9_leaves_no_orphan(fma_install: FmaInstall) -> None:
    serve = ready(fma_install).process

    os.kill(serve.pid, signal.SIGKILL)

    wait_until(lambda: not serve.members(), limit_s=2)
    ready(fma_install)


def test_kill_9_of_a_worker_leaves_no_orphan(fma_install: FmaInstall) -> None:
    fma_install.migrate()
    worker = fma_install.start_worker()
    worker.wait_until(lambda: "worker_ready" in worker.log_text(), "it is ready")
    assert len(worker.members()) >= 6  # itself, its guard, two that aggregate, two that fetch and record

    os.kill(worker.pid, signal.SIGKILL)

    wait_until(lambda: not worker.members(), limit_s=2)


def test_a_worker_alone_stops_cleanly(fma_install: FmaInstall) -> None:
    fma_install.migrate()
    worker = fma_install.start_worker()
    worker.wait_until(lambda: "worker_ready" in worker.log_text(), "it is ready")

    assert worker.stop() == 0
    assert "worker_stopped" in worker.log_text()


def test_kill_9_of_the_http_server_leaves_no_orphan(fma_install: FmaInstall) -> None:
    fma_install.change_env({"FMA_WEB_WORKERS": "2"})
    fma_install.migrate()
    web = fma_install.start_web().process
    assert len(web.members()) == 3

    os.kill(web.pid, signal.SIGKILL)

    wait_until(lambda: not web.members(), limit_s=2)


@pytest.mark.parametrize("host", ["localhost", "[::1]"])
def test_it_listens_on_a_name_and_on_ipv6(fma_install: FmaInstall, host: str) -> None:
    fma_install.migrate()

    server = fma_install.start_web(host=host)

    assert server.status_of("/healthz") == 200
    assert f"url={server.base_url}" in server.process.log_text()
