"""A command under test as a real process: waited for, stopped, killed, and seen to leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.servers.forks import ForkedProcess, Forks

STOP_LIMIT_S = 30


class ServerProcess:
    """A running command and all that it starts: they share a session of the operating system, led by `pid`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        forks: Forks | None = None,
    ) -> None:
        """Start the command; `forks`: as a fork that has loaded the libraries of `python -m` with this command."""
        self.name = " ".join(command[1:])
        self.log = log
        self._process: subprocess.Popen[bytes] | ForkedProcess
        with open(log, "ab") as out, open(os.devnull, "rb") as nothing:
            if forks is None:
                self._process = subprocess.Popen(
                    command, env=env, cwd=cwd, stdin=nothing, stdout=out, stderr=out, start_new_session=True
                )
            else:
                self._process = forks.start(
                    command[2:], env=env, cwd=cwd, stdin=nothing, stdout=out, stderr=out
                )
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def log_text(self) -> str:
        """The output of the process and its children so far."""
        return self.log.read_text(errors="replace")

    def wait_until(self, is_so: Callable[[], bool], what: str, *, limit_s: float = 30) -> None:
        """Return when `is_so()`; fail, with the log, when the process ends before or the time is up."""
        limit = time.monotonic() + limit_s
        while not is_so():
            if self.exit_code is not None:
                raise AssertionError(
                    f"`{self.name}` ended with {self.exit_code} before {what}{self._log_tail()}"
                )
            if time.monotonic() > limit:
                raise AssertionError(f"`{self.name}` ran for {limit_s:g} s without: {what}{self._log_tail()}")
            time.sleep(0.05)

    def wait(self, *, limit_s: float = STOP_LIMIT_S) -> int:
        """The exit code, when it ends by itself."""
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"`{self.name}` did not end in {limit_s:g} s{self._log_tail()}") from None

    def stop(self, how: signal.Signals = signal.SIGTERM, *, limit_s: float = STOP_LIMIT_S) -> int:
        """Ask the command itself to stop, and return its exit code. Fails when anything that it started lives on."""
        if self.exit_code is None:
            self._process.send_signal(how)
        try:
            code = self.wait(limit_s=limit_s)
            limit = time.monotonic() + 2
            while (left := self.members()) and time.monotonic() < limit:
                time.sleep(0.05)
        finally:
            self.kill()
        if left:
            raise AssertionError(f"`{self.name}` ended and left processes {sorted(left)}{self._log_tail()}")
        return code

    def kill(self) -> None:
        """kill -9 the command and everything that it started, and wait until all are gone; no harm when they are."""
        limit = time.monotonic() + STOP_LIMIT_S
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        # Again and again: some make a process group of their own, one may just have been forked, and the system takes
        # its time to end those that were told to.
        while members := self.members():
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.poll()
            if time.monotonic() > limit:
                raise AssertionError(f"`{self.name}` was killed and left processes {sorted(members)}")
            time.sleep(0.01)
        self._process.wait()

    def members(self) -> set[int]:
        """The living processes that the command started, itself included."""
        found = set()
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # pid (name, which may hold anything) state ppid pgrp session …
                state, _ppid, _pgrp, session = status.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.pid and state not in "ZX":
                    found.add(int(status.parent.name))
        return found

    def _log_tail(self) -> str:
        return f"; the end of its log:\n{self.log_text()[-6000:]}"
