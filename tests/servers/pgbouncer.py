"""A real PgBouncer that pools by transaction, in front of a PostgreSQL server: Debian's package `pgbouncer`."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest

from tests.servers.free_port import free_port
from tests.servers.missing import missing

PROGRAM = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"

_SETTINGS = """\
[databases]
{name} = host={host} port={port} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
server_round_robin = 1
"""


@contextmanager
def pgbouncer(database_url: str, folder: Path, *, connections: int = 4) -> Iterator[str]:
    """The URL of a database through a pooler that takes the next of its connections for each transaction."""
    if not Path(PROGRAM).exists():
        if os.environ.get("WITHOUT_PGBOUNCER"):
            pytest.skip("WITHOUT_PGBOUNCER is set")
        missing("no PgBouncer: apt-get install pgbouncer")
    database = urlsplit(database_url)
    own_port = free_port()
    folder.mkdir()
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        _SETTINGS.format(
            name=database.path[1:],
            host=database.hostname,
            port=database.port,
            user=database.username,
            own_port=own_port,
            connections=connections,
        )
    )
    # It refuses to run as root, and another user cannot enter pytest's folders: it reads its settings from its input.
    user = "nobody" if os.geteuid() == 0 else None
    log = folder / "pgbouncer.log"
    with open(settings, "rb") as configuration, open(log, "wb") as out:
        process = subprocess.Popen(
            [PROGRAM, "/dev/stdin"], stdin=configuration, stdout=out, stderr=out, user=user, cwd="/"
        )
    url = urlunsplit(database._replace(netloc=f"{database.username}@127.0.0.1:{own_port}"))
    try:
        limit = time.monotonic() + 10
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"PgBouncer did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True
