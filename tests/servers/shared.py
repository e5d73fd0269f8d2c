"""One real server for all the processes of a test session: the first to ask starts it, the last to leave stops it.

With pytest-xdist every worker is a process of its own, and any of them may be the first, the last, or crash. The
supervisor (supervisor.py) therefore belongs to none of them.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

Facts = dict[str, str]
"""The facts that a user of the server needs: its address, its keys."""

START_LIMIT_S = 30
STOP_LIMIT_S = 12


@dataclass(frozen=True)
class Launch:
    """How to run a prepared server, and how to learn that it is up.

    folder: the server's own, removed when it has stopped.
    ask: given the server's log so far, the facts when it answers, None while it does not.
    """

    command: list[str]
    folder: Path
    stop_signal: str
    ask: Callable[[str], Facts | None]
    user: str = ""


@contextmanager
def shared_server(state: Path, prepare: Callable[[], Launch]) -> Iterator[Facts]:
    """The facts of the server that is kept under the folder `state`, started by `prepare()` if it does not run."""
    state.mkdir(parents=True, exist_ok=True)
    with open(state / "users.lock", "a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        facts_file = state / "facts.json"
        with open(state / "start.lock", "a") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            if not facts_file.exists():
                facts_file.write_text(json.dumps(_start(state, prepare())))
            facts: Facts = json.loads(facts_file.read_text())
        try:
            yield facts
        finally:
            _leave(users.fileno(), facts_file)


def _start(state: Path, launch: Launch) -> Facts:
    log = state / "server.log"
    log.write_bytes(b"")
    supervisor = Path(__file__).with_name("supervisor.py")
    process = subprocess.Popen(
        [
            sys.executable,
            str(supervisor),
            str(state),
            str(launch.folder),
            launch.stop_signal,
            launch.user,
            *launch.command,
        ],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the tests; the server goes when they are gone
    )
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        if (facts := launch.ask(log.read_text(errors="replace"))) is not None:
            # It outlives this process by design: silence the warning about a child that was never waited for.
            process.returncode = 0
            return facts
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.terminate()
    process.wait()
    raise RuntimeError(f"{launch.command[0]} did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _leave(users: int, facts_file: Path) -> None:
    """Let go of the server; whoever is the last waits until it has stopped, so that a test run leaves nothing."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    fcntl.flock(users, fcntl.LOCK_UN)
    limit = time.monotonic() + STOP_LIMIT_S
    while facts_file.exists() and time.monotonic() < limit:
        time.sleep(0.02)
