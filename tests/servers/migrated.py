"""A migrated SQLite database, made once and kept in .pytest_cache: tests and installations begin with a copy of it.

Migrating an empty one takes some seconds, and a hundred tests start a server. It is made anew when a migration, a
package that brings some, or the list of applications changes. Tests about the first start begin without it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

from django.conf import settings

FOLDER = "TESTS_MIGRATED_FOLDER"
FILE = "fma.sqlite3"
MIGRATIONS = Path(__file__).resolve().parents[2] / "fma_django" / "migrations"
PACKAGES = ("django", "django-q2", "djangorestframework", "django-unfold", "django-allauth")


def put_into(data_dir: Path, make: Callable[[Path], None]) -> Path:
    """Copy the database into a data folder; the first to ask has `make` make it, in a data folder of its own."""
    shared = Path(os.environ[FOLDER])
    kept = shared / f"{key()}.sqlite3"
    with open(shared / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            for earlier in shared.glob("*.sqlite3"):
                earlier.unlink()
            making = shared / "making"
            shutil.rmtree(making, ignore_errors=True)
            make(making)
            os.replace(making / FILE, kept)
            shutil.rmtree(making)
        return Path(shutil.copyfile(kept, data_dir / FILE))


@cache
def key() -> str:
    """The name of the migrations that are here, and of the packages that bring some."""
    found = hashlib.sha256(" ".join(settings.INSTALLED_APPS).encode())
    for file in sorted(MIGRATIONS.glob("*.py")):
        found.update(file.name.encode() + file.read_bytes())
    for package in PACKAGES:
        found.update(f"{package} {version(package)}".encode())
    return found.hexdigest()[:16]
