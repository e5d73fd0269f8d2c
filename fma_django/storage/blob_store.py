"""The seam between the record and the bytes: what every blob store promises.

A blob is an immutable file named by the sha256 of its content, kept under the key `blobs/ab/abcdef…`. Nothing here
trusts an ETag or needs a conditional PUT: two writers of the same name write the same bytes, so the last one may win.

The order that keeps rows and bytes together is: write in `spool_dir()`, `put_file` (or `put_bytes`), then commit the
row. A crash in between leaves an orphan, never a row without its bytes; `blobs`, `delete(older_than=…)` and
`remove_unfinished` are what a sweep needs to clear orphans away.

tests/contracts/blob_store.py holds the suite that an implementation has to pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from fma_django.storage.errors import InvalidBlobName

PIECE_BYTES = 1 << 20

Progress = Callable[[float], None]
"""A callback with the fraction done: in [0, 1], never falling, from the calling thread."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FRAGMENT = re.compile(r"[0-9a-f]{32}/[0-9a-z-]*")


@dataclass(frozen=True)
class StoredBlob:
    """One entry of a store's listing; `modified_at` is aware, and is when the blob was last put."""

    sha256: str
    size_bytes: int
    modified_at: datetime


class BlobStore(Protocol):
    """Immutable files named by their sha256.

    Every method raises InvalidBlobName for a name that is not 64 lower-case hex digits, and StorageUnavailable when the
    store cannot be reached, read or written. Safe to share between threads and across a fork.
    """

    def put_file(self, path: Path, sha256: str) -> None:
        """Move the finished file at `path` into the store; afterwards it is durable and the blob's age is zero.

        All or nothing: no reader ever sees a part of it. Putting a blob again is allowed, replaces the stored copy (and
        so mends a damaged one) and makes it young again. On failure the file is still at `path`.
        `sha256` is the caller's word, computed while the bytes were written; the store does not read them again.
        """

    def put_bytes(self, data: bytes, sha256: str) -> None:
        """The same for a blob that is in memory: for small ones, which cost less without a file of their own."""

    def open_range(self, sha256: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes [start, start + length) in pieces of at most 1 MiB; cut at the blob's end, so possibly none.

        Raises BlobMissing at the call, before the first piece.
        """

    def local_path(self, sha256: str) -> Path | None:
        """The blob as a local file to read, or None for a store that has no local files.

        Raises BlobMissing when the store is local and does not hold the blob.
        """

    def presigned_url(self, sha256: str, *, seconds: int) -> str | None:
        """An address from which anybody can GET the blob for so long; None for a store that nobody else can reach.

        It is not looked whether there is such a blob.
        """

    def fetch(self, sha256: str, to: Path, progress: Progress | None = None) -> None:
        """Copy the blob to the local file `to`, which appears only when it is complete and hashes to `sha256`.

        Raises BlobMissing, or BlobCorrupt when the stored bytes hash to something else.
        """

    def size_bytes(self, sha256: str) -> int | None:
        """The size of the blob, or None when there is no such blob."""

    def delete(self, sha256: str, *, older_than: datetime | None = None) -> bool:
        """Forget the blob; no error when there is none. False when it was kept because it is not `older_than`.

        older_than: aware. A sweep passes the time that it looked for: a blob put again since then is kept.
        """

    def blobs(self) -> Iterator[StoredBlob]:
        """Every stored blob, in no particular order; whatever else lies in the store's place is passed over."""

    def ping(self) -> None:
        """Return when the store can be reached and written, else raise StorageUnavailable within a few seconds."""

    def read_owner(self) -> bytes | None:
        """The small object that says whose store this is; None before `write_owner`."""

    def write_owner(self, data: bytes) -> None:
        """Store or replace that object; no reader ever sees a part of it."""

    def spool_dir(self) -> Path:
        """The existing local folder in which files are written before `put_file`."""

    def remote(self) -> RemoteBlobs | None:
        """The store for several machines at once; None when they share its folder itself."""

    def remove_unfinished(self, older_than: datetime) -> int:
        """Remove what crashed writers left behind (spool files, unfinished uploads, fragments) and return how many.

        older_than: aware. A folder in the spool goes when everything in it is older; a long job keeps its folder by
        touching it.
        """


class RemoteBlobs(Protocol):
    """The operations of machines that work on one round, on a store that is on none of them.

    A fragment is a part of a result, on its way from the machine that made it to the one that asked for it. Its name is
    FOLDER/NAME, a folder for each piece of work; a sweep removes what was forgotten there. Raises StorageUnavailable.
    """

    def read_range(self, sha256: str, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of a blob, which must have them. Raises BlobMissing."""

    def put_fragment(self, name: str, data: bytes) -> None:
        """Store or replace a fragment."""

    def read_fragment(self, name: str) -> bytes:
        """Raises BlobMissing when there is no such fragment."""

    def remove_fragments(self, folder: str) -> None:
        """Remove all fragments of a folder; no error when there are none."""


def check_sha256(name: str) -> str:
    """`name` itself, when it is a sha256 in 64 lower-case hex digits. No other string ever becomes part of a path."""
    if not _SHA256.fullmatch(name):
        raise InvalidBlobName(
            f"a blob's name is 64 lower-case hex digits (its sha256); got {name!r}", name=name
        )
    return name


def fragment_key(name: str) -> str:
    """The key of a fragment, or of a folder of them, below a store's root or prefix."""
    if not _FRAGMENT.fullmatch(name):
        raise InvalidBlobName(f"a fragment's name is FOLDER/NAME; got {name!r}", name=name)
    return f"fragments/{name}"


def blob_key(sha256: str) -> str:
    """The key of a blob below a store's root or prefix."""
    check_sha256(sha256)
    return f"blobs/{sha256[:2]}/{sha256}"
