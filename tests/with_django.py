"""Django as the tests want it: quick passwords, static files looked for when asked for, a database in a file.

tests/environment.py loads it for all runs but those of tests/core alone.
"""

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import setup_databases, teardown_databases
from pytest_django import DjangoDbBlocker

from tests.servers.fma import put_migrated_into


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
    """A database of this process: on SQLite a copy of the migrated one, which takes no time, else a migrated one.

    SQLite as it is used: a file. In memory its tables are locked where a file's writers wait for each other.
    """
    if connection.vendor == "sqlite":
        connection.settings_dict["NAME"] = str(put_migrated_into(tmp_path_factory.mktemp("database")))
        yield
        return
    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False)
    yield
    with django_db_blocker.unblock():
        teardown_databases(made, verbosity=0)
