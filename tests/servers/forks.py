"""Processes that begin as forks of one that has loaded their libraries: each is up a second of CPU sooner.

    process = of_fma.start(["fma_api.cli", "worker"], env=env, cwd=folder, stdin=a, stdout=b, stderr=c)
    process.pid, process.poll(), process.wait(10)

It is `python -m MODULE …` in a session of its own: what reads settings is not loaded before the fork. The process that
forks (`python -m tests.servers.forks MODULE…` loads these modules) ends with the one that started it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

REPOSITORY = Path(__file__).resolve().parents[2]
CAN_FORK = sys.platform == "linux"


class ForkedProcess:
    """As subprocess.Popen: `pid`, `poll`, `wait` and `send_signal`."""

    def __init__(self, name: str, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self._name = name
        self._connection = connection
        self._code: int | None = None

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            readable, _, _ = select.select([self._connection], [], [], timeout)
            if not readable:
                raise subprocess.TimeoutExpired(self._name, timeout or 0)
            self._code = _heard(self._connection)
            self._connection.close()
        return self._code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Forks:
    """A process that has loaded the modules, started when it is first needed, and its forks.

    env: for the modules that read it while they are loaded.
    """

    def __init__(self, *modules: str, env: Mapping[str, str] | None = None) -> None:
        self._modules = modules
        self._env = {"PYTHONUNBUFFERED": "1", **(env or {})}
        self._lock = threading.Lock()
        self._address = ""

    def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdin: IO[Any],
        stdout: IO[Any],
        stderr: IO[Any],
    ) -> ForkedProcess:
        """Start `python -m` with this command in a session of its own."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address())
        files = [file.fileno() for file in (stdin, stdout, stderr)]
        return ForkedProcess(" ".join(command), connection, _ask(connection, files, command, env, cwd))

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """As subprocess.run, of `python -m` with this command."""
        with TemporaryFile("w+") as given, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            given.write(stdin)
            given.seek(0)
            process = self.start(command, env=env, cwd=cwd, stdin=given, stdout=out, stderr=err)
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, code, out.read(), err.read())

    def put_program(self, program: Path, module: str) -> None:
        """Write a program that is `python -m MODULE`, for a shell to find."""
        program.write_text(
            f"#!{sys.executable} -SE\n"
            f"import sys\n"
            f"sys.path.append({str(REPOSITORY)!r})\n"
            f"from tests.servers.forks import be_fork\n"
            f"be_fork({self.address()!r}, {module!r})\n"
        )
        program.chmod(0o755)

    def address(self) -> str:
        """The socket where the process that forks is asked."""
        with self._lock:
            if not self._address:
                self._address = self._begin()
            return self._address

    def _begin(self) -> str:
        address = f"{tempfile.mkdtemp(prefix='fma-forks-')}/asked"
        env = {name: value for name, value in os.environ.items() if not name.startswith(("FMA_", "DJANGO_"))}
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(address)
            listening.listen(128)
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.servers.forks", str(listening.fileno()), *self._modules],
                env=env | self._env,
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,  # which is closed when this process ends, however it does
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )
        atexit.register(_end, process)
        return address


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(10)


def be_fork(address: str, module: str) -> None:
    """Start `python -m MODULE` with the arguments and the streams of this process, and end as it ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        _ask(connection, [0, 1, 2], [module, *sys.argv[1:]], os.environ, Path.cwd())
        code = _heard(connection)
    sys.exit(code if code >= 0 else 128 - code)


def _ask(
    connection: socket.socket, files: list[int], command: Sequence[str], env: Mapping[str, str], cwd: Path
) -> int:
    """Ask for a fork with these three streams; its pid."""
    socket.send_fds(connection, [b"."], files)
    connection.sendall(json.dumps([command, dict(env), str(cwd)]).encode())
    connection.shutdown(socket.SHUT_WR)
    return _heard(connection)


def _say(connection: socket.socket, number: int) -> None:
    with suppress(OSError):  # nobody may listen any more
        connection.sendall(b"%10d" % number)


def _heard(connection: socket.socket) -> int:
    heard = connection.recv(10, socket.MSG_WAITALL)
    if len(heard) < 10:
        raise RuntimeError("the process that forks has ended")
    return int(heard)


def main() -> None:
    """Load the modules, then fork for everybody who asks, and say how each fork ended, until stdin is closed."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.freeze()
    forks: dict[int, tuple[int, socket.socket]] = {}
    while True:
        readable, _, _ = select.select([0, listening.fileno(), *forks], [], [])
        for ended in forks.keys() & set(readable):
            pid, connection = forks.pop(ended)
            with connection:
                _say(connection, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os.close(ended)
        if 0 in readable:
            shutil.rmtree(Path(listening.getsockname()).parent)
            return
        if listening.fileno() not in readable:
            continue
        connection, _ = listening.accept()
        _, files, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile("rb") as request:
            command, env, cwd = json.load(request)
        pid = os.fork()
        if pid == 0:
            for other in (listening, connection, *(each for _, each in forks.values())):
                other.close()
            for process in forks:
                os.close(process)
            _become(command, env, cwd, files)
            return
        for file in files:
            os.close(file)
        _say(connection, pid)
        forks[os.pidfd_open(pid)] = (pid, connection)


def _become(command: list[str], env: dict[str, str], cwd: str, files: list[int]) -> None:
    """Be `python -m` with this command, in an environment of its own."""
    os.setsid()
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:1] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


# Of what its commands load, nearly all that takes time and reads no settings.
of_fma = Forks(
    "fma_api.cli.application",
    "fma_core.evaluation.differences",
    "fma_core.simulation",
    "django.contrib.admin.decorators",
    "django.contrib.postgres.forms",
    "django.core.management",
    "django.core.wsgi",
    "django.test.signals",
    "django.db.migrations.executor",
    "django.views.generic",
    "granian.server",
    "httpx",
    "jsonschema",
    "markdown",
    "psutil",
    "pydantic.types",
    "requests",
)

if __name__ == "__main__":
    main()
