"""A real PgBouncer that pools by transaction: nothing is kept in a connection that may be gone in the next one."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import environ
import pytest
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper

from fma_django.record.sql import Statement
from tests.servers.pgbouncer import pgbouncer
from tests.servers.postgres import PostgresServer

NEXT = Statement("SELECT %(number)s::int + 1", prepared_as="fma_next")


@pytest.fixture(autouse=True)
def _unblocked(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def pooled_url(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[str]:
    with postgres_server.new_database() as url, pgbouncer(url, tmp_path / "pgbouncer") as pooled:
        yield pooled


def connection_to(url: str, **settings: Any) -> DatabaseWrapper:
    defaults = connections.settings["default"] | environ.Env.db_url_config(url) | settings
    return DatabaseWrapper({**defaults, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False, "OPTIONS": {}})


def numbers(connection: DatabaseWrapper) -> list[int]:
    with connection.cursor() as cursor:
        found = []
        for number in range(8):
            NEXT.execute(cursor, {"number": number})
            found += cursor.fetchone()
        return found


def test_prepared_statements_are_not_looked_for_in_other_connections(pooled_url: str) -> None:
    first, second = connection_to(pooled_url), connection_to(pooled_url)
    with closing(first), closing(second):
        for connection in (first, second, first):
            assert numbers(connection) == list(range(1, 9))
        assert first.settings_dict["DISABLE_SERVER_SIDE_CURSORS"]


def test_without_a_pooler_statements_are_prepared_and_rows_come_through_a_cursor(
    postgres_server: PostgresServer,
) -> None:
    with closing(connection_to(postgres_server.url)) as connection:
        assert numbers(connection) == list(range(1, 9))
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM pg_prepared_statements")
            assert cursor.fetchall() == [("fma_next",)]
        assert "DISABLE_SERVER_SIDE_CURSORS" not in connection.settings_dict


def test_the_settings_decide_for_a_pooler_that_pools_by_session(pooled_url: str) -> None:
    connection = connection_to(pooled_url, DISABLE_SERVER_SIDE_CURSORS=False)
    with closing(connection):
        connection.ensure_connection()
        assert connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] is False
