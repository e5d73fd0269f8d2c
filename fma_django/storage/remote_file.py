"""Read a blob of a remote store at any offset, as the engine reads a file.

Nothing is hashed on the way: a range has no hash of its own. The engine checks sizes and headers.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from fma_core.engine.weight_files import OpenFile
from fma_django.storage.blob_store import RemoteBlobs
from fma_django.storage.choose import get_store
from fma_django.storage.chunk_cache import ChunkCache
from fma_django.storage.errors import BlobMissing, StorageUnavailable

_cache: ChunkCache | None = None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A blob by its name, which the engine can open on any machine; a `Source`."""

    sha256: str
    size_bytes: int

    def open(self) -> OpenFile:
        return _OpenRemoteFile(self)

    def fetch_ahead(self, start: int, stop: int) -> None:
        if _cache is not None:
            _cache.fetch_ahead(self.sha256, self.size_bytes, start, stop)


def keep_chunks() -> None:
    """Read ahead in this process from now on: fetch in large steps, once, the ranges that are read in small ones."""
    global _cache
    if _cache is None:
        _cache = ChunkCache(remote_blobs(), get_store().spool_dir())


def remote_blobs() -> RemoteBlobs:
    """The remote side of this installation's store. Raises StorageUnavailable when it has none."""
    remote = get_store().remote()
    if remote is None:
        raise StorageUnavailable(f"{get_store()!r} is not a remote store", store=repr(get_store()))
    return remote


class _OpenRemoteFile:
    def __init__(self, file: RemoteFile) -> None:
        self.size_bytes = file.size_bytes
        self._sha256 = file.sha256

    def read_into(self, buffer: memoryview, offset: int) -> int:
        count = min(len(buffer), self.size_bytes - offset)
        if count <= 0:
            return 0
        try:
            if _cache is not None:
                return _cache.read_into(self._sha256, self.size_bytes, buffer[:count], offset)
            buffer[:count] = remote_blobs().read_range(self._sha256, offset, offset + count)
        except BlobMissing as error:
            raise FileNotFoundError(errno.ENOENT, "it is not in the store") from error
        return count

    def close(self) -> None:
        pass
