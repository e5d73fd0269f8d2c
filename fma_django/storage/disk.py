"""Blobs as files in a folder: the store of a single machine, or of several that share a file system.

    <root>/blobs/ab/abcdef…    the blobs
    <root>/.spool/             files being written; on the same file system, so that a put is another name
    <root>/.owner              says which installation sweeps here
    <root>/.lock               keeps a sweep from deleting a blob in the moment it is put again

Several processes may use one root at a time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from fma_core.arrays.codecs.write_all import write_all
from fma_django.storage.blob_store import Progress, StoredBlob, blob_key, check_sha256
from fma_django.storage.errors import (
    NO_ROOM,
    BlobMissing,
    InvalidBlobName,
    StorageFull,
    StorageUnavailable,
)
from fma_django.storage.pieces import Pieces
from fma_django.storage.spool import ensure_spool, remove_stale
from fma_django.storage.verified_copy import write_verified


class DiskStore:
    """A BlobStore in the folder `root`, which is made when it is first needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root, self._spool = str(root), str(root / ".spool")
        self._durable: set[str] = set()

    def __repr__(self) -> str:
        return f"DiskStore({str(self.root)!r})"

    def put_file(self, path: Path, sha256: str) -> None:
        """Move the file in by a rename, after its bytes and before its name are forced to the disk."""
        target = f"{self._root}/{blob_key(sha256)}"
        with self._translated(f"store {sha256}"):
            self._ensure_folder(target)
            _fsync(path)
            os.utime(path)
            try:
                self._move_in(path, target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._copy_in(path, target)

    def put_bytes(self, data: bytes, sha256: str) -> None:
        """The same, of a file that is written here; a name that is new comes first, and its bytes right after."""
        # Plain strings: these are the paths of every small update, and pathlib takes as long as the file system.
        target = f"{self._root}/{blob_key(sha256)}"
        part = f"{self._spool}/{os.urandom(8).hex()}.part"
        with self._translated(f"store {sha256}"):
            try:
                self._ensure_folder(target)
                file = self._write_new(part, data)
                try:
                    self._name_and_force(file, part, target)
                finally:
                    os.close(file)
            except BaseException:
                with suppress(FileNotFoundError):
                    Path(part).unlink()
                raise

    def open_range(self, sha256: str, start: int = 0, length: int | None = None) -> Pieces:
        """Read from the file itself, which a delete in the meantime does not disturb."""
        target = self._path(sha256)
        with self._translated(f"read {sha256}", sha256):
            # Unbuffered: the pieces are large, and a buffer would copy them once more.
            file = open(target, "rb", buffering=0)
            left = max(os.fstat(file.fileno()).st_size - start, 0)
            file.seek(start)

        def read(size: int) -> bytes:
            with self._translated(f"read {sha256}"):
                return file.read(size) or b""

        return Pieces(read, left if length is None else min(length, left), close=file.close)

    def local_path(self, sha256: str) -> Path | None:
        """The stored file itself: read it, never write it."""
        if self.size_bytes(sha256) is None:
            raise self._missing(sha256)
        return self._path(sha256)

    def presigned_url(self, sha256: str, *, seconds: int) -> None:
        """None: files have no address."""
        check_sha256(sha256)

    def fetch(self, sha256: str, to: Path, progress: Progress | None = None) -> None:
        """Copy the file out, hashing on the way. An aggregation reads `local_path` instead and copies nothing."""
        with closing(self.open_range(sha256)) as pieces, self._translated(f"copy {sha256} to {to}"):
            write_verified(pieces, to, sha256=sha256, size_bytes=pieces.left_bytes, progress=progress)

    def size_bytes(self, sha256: str) -> int | None:
        """Ask the file system."""
        with self._translated(f"look for {sha256}"):
            try:
                return self._path(sha256).stat().st_size
            except FileNotFoundError:
                return None

    def delete(self, sha256: str, *, older_than: datetime | None = None) -> bool:
        """Unlink the file; who has it open can go on reading."""
        target = self._path(sha256)
        with self._translated(f"delete {sha256}"), self._locked(fcntl.LOCK_EX):
            try:
                if older_than is not None and target.stat().st_mtime >= older_than.timestamp():
                    return False
                target.unlink()
            except FileNotFoundError:
                pass
        return True

    def blobs(self) -> Iterator[StoredBlob]:
        """Walk the folders."""
        with self._translated("list the blobs"):
            for path in (self.root / "blobs").glob("??/*"):
                try:
                    check_sha256(path.name)
                    status = path.stat()
                except (InvalidBlobName, FileNotFoundError):
                    continue  # not ours, or deleted since
                yield StoredBlob(path.name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def ping(self) -> None:
        """Write and remove a file of one byte."""
        probe = self.spool_dir() / f"ping-{uuid.uuid4().hex}"
        with self._translated("be written"):
            try:
                probe.write_bytes(b"!")
            finally:
                probe.unlink(missing_ok=True)

    def read_owner(self) -> bytes | None:
        """The file `.owner`."""
        with self._translated("say its owner"):
            try:
                return (self.root / ".owner").read_bytes()
            except FileNotFoundError:
                return None

    def write_owner(self, data: bytes) -> None:
        """Replace the file by a rename."""
        part = self.spool_dir() / f"owner-{uuid.uuid4().hex}"
        with self._translated("take its owner"):
            try:
                part.write_bytes(data)
                _fsync(part)
                part.replace(self.root / ".owner")
                _fsync(self.root)
            finally:
                part.unlink(missing_ok=True)

    def spool_dir(self) -> Path:
        """Inside the root: see the module's docstring."""
        return ensure_spool(self.root / ".spool")

    def remote(self) -> None:
        """None: machines that share this store see its folder under the same path."""

    def remove_unfinished(self, older_than: datetime) -> int:
        """Clean the spool: nothing else is ever half done."""
        return remove_stale(self.root / ".spool", older_than)

    def _path(self, sha256: str) -> Path:
        return self.root / blob_key(sha256)

    def _missing(self, sha256: str) -> BlobMissing:
        return BlobMissing(f"blob {sha256} is not in the store", sha256=sha256, store=str(self.root))

    def _ensure_folder(self, target: str) -> None:
        if target.rpartition("/")[0] not in self._durable:
            self._make_durable(target.rpartition("/")[0])

    def _name_and_force(self, file: int, part: str, target: str) -> None:
        # File systems keep names and sizes in one journal: with the name there first, the commit that forces the bytes
        # forces it too, and its folder has nothing left to do. A crash before that may leave a name without its
        # bytes, of which no row speaks and which no put believes: who finds a name taken goes the safe way, and puts
        # its own bytes in its place. A name that was not there needs no lock: no sweep has seen it.
        folder = self._open_folder(target)
        try:
            if not _link(part, target):
                os.fsync(file)
                self._move_in(part, target)
                return
            try:
                os.unlink(part)  # noqa: PTH108
                os.fsync(file)
                _force(folder)
            except BaseException:
                self._take_back(file, Path(target))
                raise
        finally:
            os.close(folder)

    def _take_back(self, file: int, target: Path) -> None:
        # Unless another put has replaced it by its own.
        with self._locked(fcntl.LOCK_EX), suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), target.stat()):
                target.unlink()

    def _move_in(self, path: str | Path, target: str) -> None:
        folder = self._open_folder(target)
        try:
            with self._locked(fcntl.LOCK_SH):
                os.replace(path, target)
            _force(folder)
        finally:
            os.close(folder)

    def _open_folder(self, target: str) -> int:
        folder = target.rpartition("/")[0]
        how = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            return os.open(folder, how)
        except FileNotFoundError:  # it was there, and was removed since
            self._durable.clear()
            self._make_durable(folder)
            return os.open(folder, how)

    def _make_durable(self, folder: str) -> None:
        # A file is only as durable as the entry of its folder, so every process forces that once too, even when
        # another one made the folder: it may not have come to its own fsync yet.
        Path(folder).mkdir(parents=True, exist_ok=True)
        _fsync(self.root / "blobs")
        if self._root not in self._durable:
            _fsync(self.root)
            with suppress(PermissionError):  # the root's own folder need not be ours to read
                _fsync(self.root.parent)
        self._durable.update((self._root, folder))

    def _write_new(self, path: str, data: bytes) -> int:
        how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(path, how, 0o600)
        except FileNotFoundError:
            self.spool_dir()
            descriptor = os.open(path, how, 0o600)
        try:
            write_all(descriptor, data, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _copy_in(self, path: Path, target: str) -> None:
        copy = self.spool_dir() / f"copy-{uuid.uuid4().hex}"
        try:
            shutil.copyfile(path, copy)
            _fsync(copy)
            self._move_in(copy, target)
        finally:
            copy.unlink(missing_ok=True)
        path.unlink()

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        # Puts share the lock and only deletes exclude them; it is held for a rename or an unlink, never for a copy.
        lock = self._open_lock()
        try:
            fcntl.flock(lock, how)
            yield
        finally:
            os.close(lock)

    def _open_lock(self) -> int:
        path, how = f"{self._root}/.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(path, how, 0o600)
        except FileNotFoundError:
            self.root.mkdir(parents=True, exist_ok=True)
            return os.open(path, how, 0o600)

    @contextmanager
    def _translated(self, action: str, sha256: str | None = None) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if sha256 is not None:
                raise self._missing(sha256) from error
            raise self._unavailable(action, error) from error
        except OSError as error:
            raise self._unavailable(action, error) from error

    def _unavailable(self, action: str, error: OSError) -> StorageUnavailable:
        kind = StorageFull if error.errno in NO_ROOM else StorageUnavailable
        return kind(f"the store {self.root} cannot {action}: {error}", store=str(self.root))


def _link(path: str, target: str) -> bool:
    """Give the file a second name; False when the name is taken or the file system has no second names."""
    try:
        os.link(path, target)
    except OSError:  # the name is taken; the folder is gone; or a file system that has no second names
        return False
    return True


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _force(descriptor)
    finally:
        os.close(descriptor)


def _force(descriptor: int) -> None:
    # Folders too: on Linux and macOS a folder opened for reading can be forced to the disk.
    try:
        os.fsync(descriptor)
    except OSError as error:
        # File systems that cannot force a folder say so with EINVAL, and have nothing to force.
        if error.errno != errno.EINVAL:
            raise
