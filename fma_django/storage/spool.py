"""The spool: the local folder where files are written before they are stored, and how it is cleaned."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

from fma_django.storage.errors import StorageFull, StorageUnavailable

UPLOADS = "uploads"
SPOOL_ID = ".spool-id"


def uploads_dir(spool: Path) -> Path:
    """The folder of unfinished uploads in a spool; `remove_stale` does not touch it."""
    return ensure_spool(spool / UPLOADS)


def spool_id(folder: Path) -> UUID:
    """The id of a folder of uploads, kept in a file of it: machines with the same one share the folder."""
    path = folder / SPOOL_ID
    with suppress(FileNotFoundError, ValueError):
        return UUID(path.read_text())
    new = folder / f"{SPOOL_ID}.{uuid4().hex}"
    new.write_text(str(uuid4()))
    # Of two processes that begin at once, the last one names it: nobody asks for the id where the parts are there.
    new.replace(path)
    return UUID(path.read_text())


def require_room(folder: Path, size_bytes: int) -> None:
    """Raise StorageFull when so many bytes do not fit now. Others may take the room: a write can still fail."""
    file_system = os.statvfs(folder)
    free_bytes = file_system.f_bavail * file_system.f_frsize
    if free_bytes < size_bytes:
        raise StorageFull(
            f"{folder} has room for {free_bytes} bytes; {size_bytes} were announced", store=str(folder)
        )


def ensure_spool(folder: Path) -> Path:
    """`folder`, made (for this user only) when it is missing."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(
            f"the spool folder {folder} cannot be made: {error}", store=str(folder)
        ) from error
    return folder


def default_spool() -> Path:
    """A folder in the system's temporary folder: the same one for every process of this user.

    It is fixed, not random, so that the sweep of one process finds what another one left when it crashed.
    """
    folder = ensure_spool(Path(tempfile.gettempdir()) / f"fma-spool-{os.getuid()}")
    # Temporary folders are open to everybody: refuse one that somebody else laid out for us.
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise StorageUnavailable(
            f"the spool folder {folder} belongs to somebody else; set FMA_SPOOL_DIR", store=str(folder)
        )
    return folder


def remove_stale(folder: Path, older_than: datetime) -> int:
    """Remove the entries of `folder` in which nothing was changed since `older_than`; return how many."""
    removed = 0
    limit = older_than.timestamp()
    if not folder.is_dir():
        return 0
    try:
        for entry in list(os.scandir(folder)):
            path = Path(entry.path)
            if entry.name == UPLOADS or _last_change(path) >= limit:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed += 1
    except OSError as error:
        raise StorageUnavailable(
            f"the spool folder {folder} cannot be cleaned: {error}", store=str(folder)
        ) from error
    return removed


def _last_change(path: Path) -> float:
    """The time of the newest change in `path`; infinity when something vanished meanwhile: its owner is at work."""
    try:
        newest = path.lstat().st_mtime
        if path.is_dir() and not path.is_symlink():
            newest = max([newest, *(child.lstat().st_mtime for child in path.rglob("*"))])
    except FileNotFoundError:
        return float("inf")
    return newest
