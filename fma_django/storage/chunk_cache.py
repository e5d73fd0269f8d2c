"""Fetch ranges of remote blobs in chunks, and keep these in one file of bounded size.

A block of an aggregation takes a few kilobytes of each of a thousand blobs, and the next block takes those after them:
a request for each would cost more than the bytes. Chunks lie on a grid, so that whoever asks first fetches for all.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from fma_core.arrays.codecs.write_all import write_all
from fma_django.storage.blob_store import RemoteBlobs
from fma_django.storage.errors import StorageUnavailable

CHUNK_BYTES = 1 << 20
CACHE_BYTES = 4 << 30
FETCHING_THREADS = 16

_Key = tuple[str, int]


class ChunkCache:
    """The most recently used chunks. Blobs never change, so no chunk is ever out of date. Safe between threads."""

    def __init__(
        self,
        blobs: RemoteBlobs,
        folder: Path,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        max_bytes: int = CACHE_BYTES,
    ) -> None:
        self._blobs = blobs
        self._chunk_bytes = chunk_bytes
        self._free = list(reversed(range(max(1, max_bytes // chunk_bytes))))
        # A file without a name: however this process ends, nothing is left of it.
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        self._lock = threading.Lock()
        self._slots: OrderedDict[_Key, int] = OrderedDict()
        self._coming: dict[_Key, Future[bytes]] = {}
        self._pool = ThreadPoolExecutor(FETCHING_THREADS, thread_name_prefix="fma-fetch")

    def read_into(self, sha256: str, size_bytes: int, buffer: memoryview, offset: int) -> int:
        """Fill the beginning of `buffer`, as far as one chunk goes; return how many bytes that are."""
        index, start = divmod(offset, self._chunk_bytes)
        wanted = buffer[: self._chunk_bytes - start]
        if not self._copy((sha256, index), wanted, start):
            # Not copied from the file, where others may have pushed it out again already.
            chunk = self._fetched((sha256, index), size_bytes).result()
            wanted[:] = chunk[start : start + len(wanted)]
        return len(wanted)

    def fetch_ahead(self, sha256: str, size_bytes: int, start: int, stop: int) -> None:
        """Begin to fetch the chunks of a range that will be read soon."""
        for index in range(start // self._chunk_bytes, -(-stop // self._chunk_bytes)):
            with self._lock:
                is_here = (sha256, index) in self._slots
            if not is_here:
                self._fetched((sha256, index), size_bytes)

    def close(self) -> None:
        """Forget everything; nobody may be reading."""
        self._pool.shutdown(cancel_futures=True)
        self._file.close()

    def _copy(self, key: _Key, buffer: memoryview, start: int) -> bool:
        # Under the lock: nobody may write another chunk over it meanwhile.
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                return False
            self._slots.move_to_end(key)
            try:
                os.preadv(self._file.fileno(), [buffer], slot * self._chunk_bytes + start)
            except OSError as error:
                raise _unavailable(error) from error
        return True

    def _fetched(self, key: _Key, size_bytes: int) -> Future[bytes]:
        with self._lock:
            coming = self._coming.get(key)
            if coming is None:
                coming = self._coming[key] = self._pool.submit(self._fetch, key, size_bytes)
            return coming

    def _fetch(self, key: _Key, size_bytes: int) -> bytes:
        sha256, index = key
        start = index * self._chunk_bytes
        try:
            chunk = self._blobs.read_range(sha256, start, min(start + self._chunk_bytes, size_bytes))
            with self._lock:
                if key in self._slots:
                    return chunk
                slot = self._free.pop() if self._free else self._slots.popitem(last=False)[1]
                try:
                    write_all(self._file.fileno(), chunk, slot * self._chunk_bytes)
                except OSError as error:
                    self._free.append(slot)
                    # Not an unreadable blob: the disk here is full.
                    raise _unavailable(error) from error
                self._slots[key] = slot
            return chunk
        finally:
            with self._lock:
                del self._coming[key]


def _unavailable(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(f"the cache in the spool folder cannot be used: {error}", store="spool")
