"""Servers as processes: fma by its command, the plain Django view, Capital One's FMA, nginx."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import Bench, Database, NotInstalled
from cpu_time import anonymous_bytes, cpu_seconds

from fma_api.environment import SETTINGS
from tests.servers.fma import FmaInstall
from tests.servers.free_port import free_port
from tests.servers.process import ServerProcess

HERE = Path(__file__).parent
NO_DATABASE = Database("none")
# For all servers in Python.
THREADS = int(next(each.default for each in SETTINGS if each.name == "FMA_WEB_THREADS"))
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; tcp_nopush on; client_max_body_size 1g;
    client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {folder}/root; location / {{ dav_methods PUT; }} }}
}}
"""


@dataclass(frozen=True)
class Server:
    """A running server. token: of a developer, if it has some. env: of fma, for what works beside it."""

    port: int
    process: ServerProcess
    database: Database = NO_DATABASE
    token: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """For requests of the developer."""
        return {"Authorization": f"Token {self.token}"}

    def cpu_seconds(self) -> float:
        """The CPU time of all its processes until now, without the database's."""
        return cpu_seconds(self.process.members())

    def database_cpu_seconds(self) -> float:
        return cpu_seconds(self.database.pids())

    def memory_bytes(self) -> int:
        return anonymous_bytes(self.process.members())


@contextmanager
def fma(
    bench: Bench, database: Database, *, env: Mapping[str, str] | None = None, worker: bool = True
) -> Iterator[Server]:
    """`fma serve`, or `fma web` alone."""
    settings = {
        "FMA_LOG_LEVEL": "WARNING",
        "FMA_LOGIN_RATE": "100000/min",
        "FMA_REGISTRATION_RATE": "100000/min",
        **(env or {}),
    }
    if database.url:
        settings["FMA_DATABASE_URL"] = database.url
    with bench.new_folder("fma") as folder, FmaInstall(folder / "data", settings) as install:
        install.manage("migrate")
        user = install.add_user("anna")
        running = install.start_serve() if worker else install.start_web()
        if worker:
            running.wait_until_ready()
        port = int(running.base_url.rpartition(":")[2])
        yield Server(port, running.process, database, user.token, install.env)


@contextmanager
def plain_django(bench: Bench, database: Database) -> Iterator[Server]:
    with _script(bench, "plain_django", Path(sys.executable), database) as server:
        yield server


@contextmanager
def original_fma(bench: Bench, database: Database) -> Iterator[Server]:
    """Raises NotInstalled."""
    if bench.original is None:
        raise NotInstalled("Capital One's FMA is left out: --original names no interpreter that has it")
    with _script(bench, "original_fma", bench.original, database) as server:
        yield server


@contextmanager
def nginx(bench: Bench) -> Iterator[Server]:
    """Its one worker stores what is PUT, and serves it again. Raises NotInstalled."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        raise NotInstalled("nginx is not installed: nothing is compared with it")
    with bench.new_folder("nginx") as folder:
        (folder / "root").mkdir(mode=0o777)
        port = free_port()
        config = folder / "nginx.conf"
        # As root, its worker would be another user, who may not enter a folder of ours.
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(user + NGINX.format(folder=folder, port=port))
        process = ServerProcess(
            [program, "-e", f"{folder}/nginx.log", "-c", str(config)],
            env=os.environ,
            cwd=folder,
            log=folder / "out.log",
        )
        with _running(process, port):
            yield Server(port, process)


@contextmanager
def _script(bench: Bench, name: str, python: Path, database: Database) -> Iterator[Server]:
    with bench.new_folder(name) as folder:
        port, log = free_port(), folder / "log"
        data = folder / "data"
        data.mkdir()
        process = ServerProcess(
            [
                str(python),
                str(HERE / "serve_wsgi.py"),
                name,
                str(port),
                str(data),
                database.url,
                str(THREADS),
            ],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            cwd=folder,
            log=log,
        )
        with _running(process, port):
            yield Server(port, process, database, token=_last_line(log))


@contextmanager
def _running(process: ServerProcess, port: int) -> Iterator[None]:
    try:
        process.wait_until(lambda: _listens(port), "it listens", limit_s=60)
        yield
    finally:
        process.kill()


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _last_line(log: Path) -> str:
    return next(reversed(log.read_text().split("\n")[:-1]), "")
