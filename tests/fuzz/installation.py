"""An installation for one campaign: its database, its folder, and Django set up for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import tests.environment as environment  # before Django reads its settings
from tests.servers import migrated
from tests.servers.fma import put_migrated_into
from tests.servers.postgres import postgres

SETTINGS = {
    # Limits of attempts would refuse nearly all inputs before they are read; tests/concurrency tries the limits.
    "FMA_LOGIN_RATE": "1000000/min",
    "FMA_REGISTRATION_RATE": "1000000/min",
    "FMA_MAX_WAIT_SECONDS": "0.05",
    "FMA_MAX_JSON_BYTES": "256 KiB",
    "FMA_MAX_UPDATE_BYTES": "1 MiB",
    "FMA_LOG_LEVEL": "ERROR",
}


@contextmanager
def installation(database: str, folder: Path) -> Iterator[None]:
    """Set Django up on a new database. database: `sqlite` or `postgres`."""
    with ExitStack() as stack:
        os.environ |= SETTINGS
        os.environ["DJANGO_SETTINGS_MODULE"] = "fma_api.settings"
        is_migrated = False
        if database == "postgres":
            server = stack.enter_context(postgres(folder / "postgres"))
            os.environ["FMA_DATABASE_URL"] = stack.enter_context(server.new_database())
        else:
            os.environ["FMA_DATABASE_URL"] = f"sqlite:///{folder / migrated.FILE}"
            if is_migrated := migrated.FOLDER in os.environ:
                put_migrated_into(folder)
        import django
        from django.conf import settings
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
        if not is_migrated:
            call_command("migrate", verbosity=0)
        stack.callback(connections.close_all)
        yield


def store_folder() -> Path:
    """The folder of the installation's store."""
    return Path(os.environ["FMA_DATA_DIR"]) / "storage"


__all__ = ["environment", "installation", "store_folder"]
