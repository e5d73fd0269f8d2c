"""Django as the tests want it: quick passwords, static files looked for when asked for, a database in a file.

tests/environment.py loads it for all runs but those of tests/core alone.
"""

from pathlib import Path

import pytest
from django.conf import settings


def pytest_configure() -> None:
    # Hashing a password slowly is what production wants, and what a thousand tests with users do not.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # A static file is looked for when it is asked for. Otherwise every test client would go through all of them first.
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """SQLite as it is used: a file. In memory its tables are locked where a file's writers wait for each other."""
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        folder: Path = tmp_path_factory.mktemp("database")
        database["TEST"] = {**database.get("TEST", {}), "NAME": str(folder / "test.sqlite3")}
