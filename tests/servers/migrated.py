"""A migrated SQLite database, made once for a whole test run: an installation begins with a copy of it.

Migrating an empty one takes some three seconds, and a hundred tests start a server. Those that are about the first
start begin without it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

FOLDER = "TESTS_MIGRATED_FOLDER"
FILE = "fma.sqlite3"


def open_folder() -> Path | None:
    """Make the folder that this process and those that it starts share; None where one is shared already."""
    if FOLDER in os.environ:
        return None
    os.environ[FOLDER] = tempfile.mkdtemp(prefix="fma-migrated-")
    return Path(os.environ[FOLDER])


def close_folder(folder: Path) -> None:
    """Remove it with what is in it."""
    del os.environ[FOLDER]
    shutil.rmtree(folder, ignore_errors=True)


def put_into(data_dir: Path, make: Callable[[Path], None]) -> None:
    """Copy the database into a data folder; the first to ask has `make` make it, in a data folder of its own."""
    shared = Path(os.environ[FOLDER])
    with open(shared / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / FILE).exists():
            make(shared / "making")
            os.replace(shared / "making" / FILE, shared / FILE)
    shutil.copyfile(shared / FILE, data_dir / FILE)
