"""The `fma` command as users run it: real processes over a data folder.

    server = fma_server(env={"FMA_LEASE_SECONDS": "2"})    # the fixture: `fma serve`, waited for until ready
    alice = server.install.add_user("alice", staff=True)
    httpx.get(f"{server.base_url}/api/v1/models/", headers=alice.headers)

    fma_install.migrate()                                  # or piece by piece, for crashes
    worker = fma_install.start_worker()
    worker.kill()

Everything ends with the test, and a clean stop that leaves a process behind fails it.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from fma_api.cli import user
from fma_django.accounts.roles import DATA_SCIENTIST
from tests.servers import forks, migrated, own_django
from tests.servers.free_port import free_port
from tests.servers.process import ServerProcess

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "fma_api.cli")

Env = Mapping[str, str | None]
"""Changes to the environment; None takes a variable out."""


@dataclass(frozen=True)
class User:
    """The output of `fma user add`, and the password it was given, if any."""

    id: int
    username: str
    token: str
    password: str

    @property
    def headers(self) -> dict[str, str]:
        """For requests as this user."""
        return {"Authorization": f"Token {self.token}"}


@dataclass(frozen=True)
class FmaServer:
    """A running HTTP server, with or without a worker beside it."""

    install: FmaInstall
    process: ServerProcess
    base_url: str

    @property
    def data_dir(self) -> Path:
        """Its FMA_DATA_DIR."""
        return self.install.data_dir

    def status_of(self, path: str) -> int:
        """The status of a GET; 0 when nobody answers."""
        address = urlsplit(self.base_url)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=10)
        try:
            # httpx takes seven times the CPU, and a server that starts is asked until it answers.
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, HTTPException):
            return 0
        finally:
            connection.close()

    def wait_until_ready(self, *, limit_s: float = 60) -> None:
        """Return when the database, the storage and a worker are there."""
        self.process.wait_until(
            lambda: self.status_of("/readyz") == 200, "/readyz answers 200", limit_s=limit_s
        )


class FmaInstall:
    """A data folder and an environment, and the commands run in them. Leaving `with` stops what still runs.

    command: how `fma` is called; by default this repository's.
    """

    def __init__(self, data_dir: Path, env: Env | None = None, *, command: Sequence[str] = COMMAND) -> None:
        self.data_dir = data_dir
        self._command = command
        # Where `python -m` finds our packages before those that are installed.
        self._cwd = REPOSITORY if command is COMMAND else data_dir
        # Not the tests' own FMA_* variables: an installation is what its test says.
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("FMA_")}
        self.env |= {
            "FMA_DATA_DIR": str(data_dir),
            "FMA_SECRET_KEY": secrets.token_hex(32),
            "FMA_REGISTRATION_RATE": "100000/min",  # all clients of a test have one address
            "PYTHONUNBUFFERED": "1",
        }
        self.forks: forks.Forks | None = None
        if migrated.FOLDER in os.environ:  # a run of tests; a benchmark measures servers as they are
            self.env["PYTHONPATH"] = str(without_numba())
            if command is COMMAND and forks.CAN_FORK:
                self.forks = forks.of_fma
        self.change_env(env or {})
        self.processes: list[ServerProcess] = []

    def __enter__(self) -> Self:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        running = [process for process in self.processes if process.exit_code is None]
        if failed is not None:
            for process in self.processes:
                process.kill()
            return
        problems = []
        for process in reversed(running):
            try:
                process.stop()
            except AssertionError as problem:
                problems.append(str(problem))
        if problems:
            raise AssertionError("\n".join(problems))

    def change_env(self, env: Env) -> None:
        """For the commands that are run from now on."""
        for name, value in env.items():
            if value is None:
                self.env.pop(name, None)
            else:
                self.env[name] = value

    def run(self, *arguments: str, stdin: str = "", limit_s: float = 60) -> str:
        """Run one `fma` command to its end and return what it printed; a failure shows all of it."""
        done = self.try_run(*arguments, stdin=stdin, limit_s=limit_s)
        if done.returncode:
            raise AssertionError(
                f"fma {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout

    def try_run(
        self, *arguments: str, stdin: str = "", limit_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run one `fma` command to its end, good or bad."""
        command = [*self._command, *arguments]
        if self.forks is not None:
            return self.forks.run(command[2:], env=self.env, cwd=self._cwd, stdin=stdin, timeout=limit_s)
        return subprocess.run(
            command,
            env=self.env,
            cwd=self._cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=limit_s,
        )

    def manage(self, *arguments: str) -> str:
        """Run one of Django's commands."""
        return self.run("manage", *arguments)

    def migrate(self) -> None:
        """`fma manage migrate` on an installation that has no database yet."""
        if self.env.get("FMA_DATABASE_URL") or migrated.FOLDER not in os.environ:
            self.manage("migrate")
        else:
            put_migrated_into(self.data_dir)

    def add_user(self, name: str, *, staff: bool = False, password: str = "") -> User:
        """A new user, by default without a password; works whether the server runs or not."""
        if own_django.unblock is not None and not password and self._is_migrated_here():
            with self.database():
                roles = [] if staff else [DATA_SCIENTIST]
                said = user.add_user(name, password=None, is_owner=staff, roles=roles)
                return User(**said, password="")
        flags = ["--owner"] if staff else ["--role", DATA_SCIENTIST]
        if password:  # hashing it takes a second
            flags.append("--password-stdin")
        said = json.loads(self.run("user", "add", name, *flags, stdin=f"{password}\n"))
        return User(id=said["id"], username=said["username"], token=said["token"], password=password)

    def database(self) -> AbstractContextManager[None]:
        """Let the models, in this process, use the installation's database; it has to be migrated."""
        url = self.env.get("FMA_DATABASE_URL") or f"sqlite:///{self.data_dir / migrated.FILE}"
        key = self.env.get("FMA_SECRET_KEY") or (self.data_dir / "secret_key").read_text().strip()
        return own_django.on_database(url, secret_key=key)

    def _is_migrated_here(self) -> bool:
        is_migrated = "FMA_DATABASE_URL" in self.env or (self.data_dir / migrated.FILE).exists()
        return self._command is COMMAND and is_migrated

    def start(self, *arguments: str, log_name: str) -> ServerProcess:
        """Start an `fma` command that goes on running; its log is beside the data folder."""
        log = self.data_dir.with_name(f"{self.data_dir.name}-{log_name}-{len(self.processes)}.log")
        process = ServerProcess(
            [*self._command, *arguments], env=self.env, cwd=self._cwd, log=log, forks=self.forks
        )
        self.processes.append(process)
        return process

    def start_worker(self) -> ServerProcess:
        """`fma worker` alone. `kill()` it for a crash: it takes the worker's children along."""
        return self.start("worker", log_name="worker")

    def start_web(self, *, host: str = "127.0.0.1", port: int | None = None) -> FmaServer:
        """`fma web` alone, answering on /healthz. The database has to be migrated already."""
        return self._start_http("web", host, port)

    def start_serve(self) -> FmaServer:
        """`fma serve`: migrates, then runs the HTTP server and the worker; answering on /healthz."""
        return self._start_http("serve", "127.0.0.1")

    def _start_http(self, command: str, host: str, port: int | None = None) -> FmaServer:
        port = port or free_port()
        process = self.start(
            command, "--data", str(self.data_dir), "--host", host, "--port", str(port), log_name=command
        )
        server = FmaServer(self, process, f"http://{host}:{port}")
        process.wait_until(lambda: server.status_of("/healthz") == 200, "/healthz answers 200", limit_s=60)
        return server


def put_migrated_into(data_dir: Path) -> Path:
    """Copy a migrated SQLite database to where an installation in this folder looks for it; the file."""
    return migrated.put_into(data_dir, _make_migrated)


@cache
def without_numba() -> Path:
    """A folder whose `numba` cannot be imported: numpy's kernels, which give the same bits, are there at once.

    Loading the compiled ones takes each worker a second. The first pages of the docs and the demo run with them.
    """
    folder = Path(os.environ[migrated.FOLDER]).with_name("without-numba")
    folder.mkdir(exist_ok=True)
    begun = folder / f"{os.getpid()}"
    begun.write_text('raise ImportError("the tests start their servers without numba")\n')
    os.replace(begun, folder / "numba.py")  # another process may be importing it
    return folder


def _make_migrated(data_dir: Path) -> None:
    with FmaInstall(data_dir) as install:
        install.manage("migrate")


class StartFma:
    """Start servers, each in a folder of its own, that end with the test."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._started = 0

    def __call__(self, env: Env | None = None, *, worker: bool = True) -> FmaServer:
        """A server with a worker, ready for work; `worker=False`: the HTTP server alone, migrated and healthy."""
        self._started += 1
        install = self._stack.enter_context(FmaInstall(self._folder / f"fma-data-{self._started}", env))
        install.migrate()
        if not worker:
            return install.start_web()
        server = install.start_serve()
        server.wait_until_ready()
        return server
