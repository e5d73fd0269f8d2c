"""The part of a body that has arrived so far: a file that only grows, whose size says how far it has got.

Nobody holds it while bytes travel: each piece is added if the file is still as long as its writer thinks. Of two who
write at once one is told so, and a connection that died without a word keeps nobody from going on with another.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fma_django.storage.errors import full_disk_told

# The most that is lost when a connection is cut in the middle of a piece.
PIECE_BYTES = 2**18


class PartGone(Exception):
    """The file does not exist, or no longer."""


class PartMoved(Exception):
    """The file has another size than its writer thought."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.size_bytes = size_bytes


class PartBusy(Exception):
    """Another process is reading the file."""


class PartDamaged(Exception):
    """The bytes that arrived have another digest than announced; they were cut off again."""


@dataclass(frozen=True)
class PartFile:
    path: Path

    def create(self) -> None:
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    def size_bytes(self) -> int:
        """Raises PartGone."""
        with _gone_told():
            return self.path.stat().st_size

    def written_at(self) -> float:
        """The POSIX time at which the last piece came; 0 when the file is gone."""
        try:
            return self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[int]:
        """The file as a descriptor to read from, for one at a time. Raises PartGone, PartBusy."""
        with _gone_told():
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PartBusy from error
            if not self._is(fd):
                raise PartGone
            yield fd
        finally:
            os.close(fd)

    def append(
        self, read: Callable[[int], bytes], *, at: int, length: int, sha256: bytes | None = None
    ) -> int:
        """Append `length` bytes from `read`, or as many as come; return the size of the file on the disk.

        at: the size that the file must have before. sha256: the digest of the bytes, checked when all of them came.
        Raises PartGone, PartMoved, PartDamaged, StorageFull; bytes from before PartMoved and StorageFull stay.
        """
        end = at
        digest = hashlib.sha256() if sha256 is not None else None
        with _gone_told():
            fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            with full_disk_told(self.path.parent):
                try:
                    _require_end(fd, at)
                    while end < at + length and (piece := read(min(PIECE_BYTES, at + length - end))):
                        _add(fd, piece, end)
                        end += len(piece)
                        if digest is not None:
                            digest.update(piece)
                    if digest is not None and end == at + length and digest.digest() != sha256:
                        self._cut(fd, at, if_longer_than=end)
                        raise PartDamaged
                finally:
                    self._force(fd, at)
            if not self._is(fd):
                raise PartGone
        finally:
            os.close(fd)
        return end

    def _cut(self, fd: int, end: int, *, if_longer_than: int) -> None:
        with _locked(fd):
            status = os.fstat(fd)
            # A file with a second name, or without this one, may be one of the store by now.
            if status.st_size >= if_longer_than and status.st_nlink == 1 and self._is(fd):
                os.ftruncate(fd, end)

    def _force(self, fd: int, start: int) -> None:
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return
            # Nobody knows which of the bytes are on the disk.
            self._cut(fd, start, if_longer_than=start)
            raise

    def _is(self, fd: int) -> bool:
        # The number of names does not tell: the store may have made a second one.
        try:
            return os.path.samestat(os.fstat(fd), self.path.stat())
        except FileNotFoundError:
            return False


@contextmanager
def _gone_told() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise PartGone from error


@contextmanager
def _locked(fd: int) -> Iterator[None]:
    # Waits for one write of a piece, or until `held` has made the file an update; the lock goes with its process.
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _require_end(fd: int, end: int) -> None:
    size_bytes = os.fstat(fd).st_size
    if size_bytes != end:
        raise PartMoved(size_bytes)


def _add(fd: int, piece: bytes, end: int) -> None:
    left = memoryview(piece)
    with _locked(fd):
        _require_end(fd, end)
        while left:
            written = os.pwrite(fd, left, end)
            left, end = left[written:], end + written
