"""Django as the tests want it: quick passwords, static files looked for when asked for, a database in a file.

tests/environment.py loads it for all runs but those of tests/core alone.
"""

import os
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection
from pytest_django import DjangoDbBlocker

from tests.servers.fma import put_migrated_into
from tests.servers.postgres import PostgresServer


def pytest_configure() -> None:
    # Hashing a password slowly is what production wants, and what a thousand tests with users do not.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # A static file is looked for when it is asked for. Otherwise every test client would go through all of them first.
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_modify_db_settings: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """A database of this process: a copy of a migrated one, which takes no time.

    SQLite as it is used: a file. In memory its tables are locked where a file's writers wait for each other.
    """
    if connection.vendor == "sqlite":
        connection.settings_dict["NAME"] = str(put_migrated_into(tmp_path_factory.mktemp("database")))
        yield
        return
    server = PostgresServer(os.environ["DATABASE_URL"])
    with server.migrated_database() as url:
        connection.settings_dict["NAME"] = urlsplit(url).path[1:]
        connection.ops.sql_flush = _delete_all  # type: ignore[method-assign]
        yield
        with django_db_blocker.unblock():
            connection.close()


def _delete_all(style: Any, tables: Collection[str], **_: Any) -> list[str]:
    """Empty the tables when a test of transactions is over. TRUNCATE, Django's way, takes a hundred times as long to
    empty what is nearly empty.
    """
    return [f"DELETE FROM {connection.ops.quote_name(table)}" for table in tables]
