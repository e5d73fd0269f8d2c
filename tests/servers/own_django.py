"""The database of an installation through the Django of this process. A command would load Django first: a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.db.utils import ConnectionHandler
from django.test import override_settings

unblock: Callable[[], AbstractContextManager[None]] | None = None
"""Let the database be used outside of pytest-django's fixtures; None where no tests run (benchmarks)."""


@contextmanager
def on_database(url: str, *, secret_key: str) -> Iterator[None]:
    """Let the models, in this thread, use the database at `url`, as the installation with this secret key does."""
    from fma_api.settings import _database

    assert unblock is not None
    own = connections["default"]
    other = ConnectionHandler({"default": _database(url)})["default"]
    with unblock(), override_settings(SECRET_KEY=secret_key):
        connections["default"] = other
        try:
            yield
        finally:
            connections["default"] = own
            other.close()


def migrate(url: str) -> None:
    """`fma manage migrate` of the database at `url`."""
    with on_database(url, secret_key=settings.SECRET_KEY):
        call_command("migrate", verbosity=0, interactive=False)
