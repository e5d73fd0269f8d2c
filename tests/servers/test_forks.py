"""A fork is as `python -m` would be: its arguments, environment, folder, streams and end are its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.servers.forks import CAN_FORK, Forks
from tests.servers.process import ServerProcess

pytestmark = [pytest.mark.processes, pytest.mark.skipif(not CAN_FORK, reason="forks on Linux alone")]

TOLD = """
import os, sys
import borrowed
print(__name__, sys.argv[1:], os.environ.get("COLOUR"), "FMA_SECRET_KEY" in os.environ, os.getcwd(), sys.stdin.read())
print("wrong", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""
SLEEPS = "import time; print('up', flush=True); time.sleep(60)"
OWNER = """
import sys
from pathlib import Path
from tests.servers.forks import Forks

forks = Forks("json")
forks.run(["this"], env={}, cwd=Path("/"), stdin="", timeout=10)
print(forks.address(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def forks() -> Forks:
    return Forks("json")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python finds the modules `told` and `sleeps`."""
    (tmp_path / "told.py").write_text(TOLD)
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    (tmp_path / "borrowed").mkdir()
    (tmp_path / "borrowed" / "borrowed.py").touch()
    return {"COLOUR": "blue", "PYTHONPATH": str(tmp_path / "borrowed")}


def test_a_command_has_what_it_is_given_and_nothing_else(
    forks: Forks, env: dict[str, str], tmp_path: Path
) -> None:
    done = forks.run(["told", "3", "b c"], env=env, cwd=tmp_path, stdin="read me", timeout=30)

    said = f"__main__ ['3', 'b c'] blue False {tmp_path} read me\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, said, "wrong\n")


def test_a_program_of_a_shell_is_a_fork(forks: Forks, env: dict[str, str], tmp_path: Path) -> None:
    forks.put_program(tmp_path / "told", "told")

    done = subprocess.run(
        ["bash", "-c", "echo piped | ./told 4 | tr a-z A-Z; exit ${PIPESTATUS[1]}"],
        env={**os.environ, **env},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (4, "wrong\n")
    assert f"['4'] BLUE TRUE {tmp_path} PIPED".upper() in done.stdout


def test_a_fork_is_stopped_and_killed_as_a_process_is(
    forks: Forks, env: dict[str, str], tmp_path: Path
) -> None:
    for end in (signal.SIGTERM, signal.SIGKILL):
        process = ServerProcess(
            [sys.executable, "-m", "sleeps"], env=env, cwd=tmp_path, log=tmp_path / end.name, forks=forks
        )
        process.wait_until(partial(is_up, process), "it is up")
        code = process.exit_code
        assert (code, process.members()) == (None, {process.pid})

        assert process.stop(end) == -end

        assert process.exit_code == -end
        assert process.members() == set()


def is_up(process: ServerProcess) -> bool:
    return "up" in process.log_text()


def test_a_command_that_takes_too_long_is_killed(forks: Forks, env: dict[str, str], tmp_path: Path) -> None:
    began = time.monotonic()

    with pytest.raises(subprocess.TimeoutExpired):
        forks.run(["sleeps"], env=env, cwd=tmp_path, stdin="", timeout=0.2)

    assert time.monotonic() - began < 30


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def test_the_process_that_forks_ends_with_its_owner_however_that_ends(owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    address = owner.stdout.readline().strip()
    forking = {pid for pid in pids() if parent_of(pid) == owner.pid}
    assert len(forking) == 1, address

    owner.kill()

    limit = time.monotonic() + 10
    while any(is_alive(pid) for pid in forking):
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert not Path(address).parent.exists()


def pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def parent_of(pid: int) -> int | None:
    status = status_of(pid)
    return int(status[1]) if status else None


def is_alive(pid: int) -> bool:
    return status_of(pid)[:1] not in ([], ["Z"])


def status_of(pid: int) -> list[str]:
    """The fields of a process after its name: state, parent, and so on; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
