"""New, empty databases for a block: SQLite always, PostgreSQL where there is one (tests/servers)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
from bench import Bench, Database, NotInstalled
from cpu_time import parent_of

SQLITE, POSTGRES = "SQLite", "PostgreSQL"


@contextmanager
def new_databases(bench: Bench, name: str, count: int) -> Iterator[list[Database]]:
    """As many databases, all in one server; those of SQLite are made by whoever opens them.

    Raises NotInstalled.
    """
    if name == SQLITE:
        yield [Database(SQLITE)] * count
        return
    with ExitStack() as stack:
        folder = stack.enter_context(bench.new_folder("postgres"))
        try:
            import psycopg2

            from tests.servers.postgres import postgres

            server = stack.enter_context(postgres(folder))
        except (ImportError, pytest.skip.Exception, pytest.fail.Exception) as why:
            raise NotInstalled(f"no PostgreSQL: {why}") from None
        urls = [stack.enter_context(server.new_database()) for _ in range(count)]
        with closing(psycopg2.connect(server.url)) as connection:
            postmaster = parent_of(connection.info.backend_pid)
        yield [Database(POSTGRES, url, postmaster) for url in urls]
