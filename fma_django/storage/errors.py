"""Errors of the blob store, a branch of the tree in fma_core.errors.

    FMAError
    └── StorageError               storage_error
        ├── InvalidBlobName        invalid_blob_name
        ├── BlobMissing            blob_missing
        ├── BlobCorrupt            blob_corrupt
        └── StorageUnavailable     storage_unavailable
            └── StorageFull        storage_full

Only StorageUnavailable is worth another try.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from fma_core.errors import FMAError


class StorageError(FMAError):
    """Something about stored bytes is not as it must be."""

    code: ClassVar[str] = "storage_error"


class InvalidBlobName(StorageError):
    """The name of a blob is not a sha256 in 64 lower-case hex digits. Facts: name."""

    code: ClassVar[str] = "invalid_blob_name"


class BlobMissing(StorageError):
    """No blob is stored under this sha256. Facts: sha256."""

    code: ClassVar[str] = "blob_missing"


class BlobCorrupt(StorageError):
    """Stored bytes that are not as they were stored: another hash, another size, or no weights.

    Facts: sha256, and found or found_bytes where one of them was compared.
    """

    code: ClassVar[str] = "blob_corrupt"


class StorageUnavailable(StorageError):
    """The store cannot be reached, read or written. Worth another try later. Facts: store."""

    code: ClassVar[str] = "storage_unavailable"


class StorageFull(StorageUnavailable):
    """There is no room for what was to be written, and nothing of it is kept. Facts: store."""

    code: ClassVar[str] = "storage_full"


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def full_disk_told(where: object) -> Iterator[None]:
    """An OSError for want of room as StorageFull; any other one as it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StorageFull(f"there is no room in {where}: {error}", store=str(where)) from error
