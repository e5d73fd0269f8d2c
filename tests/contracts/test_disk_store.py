"""The contract on DiskStore, and what only a disk can show."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fma_django.storage import BlobMissing, BlobStore, StorageUnavailable
from fma_django.storage.disk import DiskStore
from fma_django.storage.errors import StorageFull
from tests.contracts.blob_store import (
    BlobStoreContract,
    Harness,
    name_of,
    put,
    read,
    run_until_killed,
    spooled,
)

CRASH = """
import os, signal, sys
from pathlib import Path
from fma_django.storage.disk import DiskStore

os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
DiskStore(Path(sys.argv[1])).put_file(Path(sys.argv[2]), sys.argv[3])
"""


class DiskHarness(Harness):
    def __init__(self, root: Path) -> None:
        self.root = root
        self.store: BlobStore = DiskStore(root)

    def open_again(self) -> BlobStore:
        return DiskStore(self.root)

    def tamper(self, sha256: str, data: bytes) -> None:
        self._at(f"blobs/{sha256[:2]}/{sha256}").write_bytes(data)

    def add_foreign(self, key: str) -> None:
        self._at(key).parent.mkdir(parents=True, exist_ok=True)
        self._at(key).write_bytes(b"not a blob")

    def break_down(self) -> None:
        shutil.rmtree(self.root)
        self.root.write_text("a file where the folder was")

    def crash_in_put(self, path: Path, sha256: str) -> subprocess.CompletedProcess[str]:
        return run_until_killed(CRASH, str(self.root), str(path), sha256)

    def _at(self, key: str) -> Path:
        return self.root / key


@pytest.fixture
def harness(tmp_path: Path) -> DiskHarness:
    return DiskHarness(tmp_path / "storage")


class TestDiskStore(BlobStoreContract):
    pass


def test_store_makes_its_folder_when_first_used(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "deep" / "storage")
    assert list(store.blobs()) == []
    assert not (tmp_path / "deep").exists()

    assert read(store, put(store, b"weights")) == b"weights"


def test_put_renames_within_the_root(harness: DiskHarness) -> None:
    path = spooled(harness.store, b"weights")
    inode = path.stat().st_ino

    harness.store.put_file(path, name_of(b"weights"))

    stored = harness.store.local_path(name_of(b"weights"))
    assert stored is not None
    assert stored.stat().st_ino == inode


def test_file_of_another_file_system_is_copied(harness: DiskHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.replace
    path = harness.root.with_name("elsewhere")
    path.write_bytes(b"weights")

    def refuse_to_cross(source: Path, target: Path) -> None:
        if source == path:
            raise OSError(18, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse_to_cross)
    harness.store.put_file(path, name_of(b"weights"))

    assert read(harness.store, name_of(b"weights")) == b"weights"
    assert not path.exists()
    assert list(harness.store.spool_dir().iterdir()) == []


def test_bytes_are_on_the_disk_before_the_name_is(
    harness: DiskHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    fsync, rename = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        happened.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        happened.append("rename")
        rename(source, target)

    path, sha256 = spooled(harness.store, b"weights"), name_of(b"weights")
    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_rename)
    harness.store.put_file(path, sha256)

    assert happened[-3:] == [f"fsync {path.name}", "rename", f"fsync {sha256[:2]}"]
    assert "fsync blobs" in happened  # the folder's own name

    happened.clear()
    harness.store.put_bytes(b"weights", sha256)

    [file, *rest] = happened
    assert file.startswith("fsync ")
    assert file.endswith(".part")
    assert rest == ["rename", f"fsync {sha256[:2]}"]


def test_a_new_name_is_there_before_its_bytes_and_its_folder_are_forced(
    harness: DiskHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One commit of a journal then holds all three."""
    sha256 = name_of(b"weights")
    put(harness.store, b"others")
    harness.store.put_bytes(b"weights", sha256)
    harness.store.delete(sha256)
    found: list[tuple[int, int]] = []
    fsync, blob = os.fsync, harness.root / "blobs" / sha256[:2] / sha256

    def note(descriptor: int) -> None:
        found.append((os.fstat(descriptor).st_ino, blob.stat().st_ino))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    harness.store.put_bytes(b"weights", sha256)

    inode = blob.stat().st_ino
    assert found == [(inode, inode), (blob.parent.stat().st_ino, inode)]


@pytest.mark.parametrize("forced", [0, 1], ids=["the file", "the folder"])
def test_a_blob_that_cannot_be_forced_is_not_there(
    harness: DiskHarness, monkeypatch: pytest.MonkeyPatch, forced: int
) -> None:
    sha256 = name_of(b"weights")
    harness.store.put_bytes(b"weights", sha256)
    harness.store.delete(sha256)
    fsync, left = os.fsync, [forced]

    def fail(descriptor: int) -> None:
        if not left[0]:
            raise OSError(errno.EIO, "Input/output error")
        left[0] -= 1
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageUnavailable):
        harness.store.put_bytes(b"weights", sha256)

    assert list(harness.store.blobs()) == []
    assert list(harness.store.spool_dir().iterdir()) == []


def test_a_put_that_fails_leaves_what_another_one_has_put_meanwhile(
    harness: DiskHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, sha256 = os.fsync, name_of(b"weights")
    harness.store.put_bytes(b"weights", sha256)
    harness.store.delete(sha256)

    def fail_behind_another(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        harness.open_again().put_bytes(b"weights", sha256)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail_behind_another)
    with pytest.raises(StorageUnavailable):
        harness.store.put_bytes(b"weights", sha256)

    assert read(harness.store, sha256) == b"weights"


def test_what_a_crash_left_under_a_name_is_replaced_bytes_first(
    harness: DiskHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = name_of(b"weights")
    put(harness.store, b"weights")
    harness.tamper(sha256, b"")
    fsync, blob = os.fsync, harness.root / "blobs" / sha256[:2] / sha256
    sizes: list[int] = []

    def note(descriptor: int) -> None:
        sizes.append(blob.stat().st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    harness.store.put_bytes(b"weights", sha256)

    assert sizes == [0, len(b"weights")]
    assert read(harness.store, sha256) == b"weights"


def test_a_file_system_without_second_names_will_do(
    harness: DiskHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    harness.store.put_bytes(b"weights", name_of(b"weights"))

    assert read(harness.store, name_of(b"weights")) == b"weights"
    assert list(harness.store.spool_dir().iterdir()) == []


def test_bytes_that_cannot_be_written_leave_nothing(
    harness: DiskHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    harness.store.spool_dir()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFull):
        harness.store.put_bytes(b"weights", name_of(b"weights"))

    assert list(harness.store.spool_dir().iterdir()) == []
    assert list(harness.store.blobs()) == []


def test_folders_that_were_removed_meanwhile_are_made_again(harness: DiskHarness) -> None:
    put(harness.store, b"weights")
    shutil.rmtree(harness.root)

    harness.store.put_bytes(b"weights", name_of(b"weights"))

    assert read(harness.store, name_of(b"weights")) == b"weights"


def test_reader_goes_on_while_the_blob_is_deleted(harness: DiskHarness) -> None:
    data = os.urandom(3 << 20)
    pieces = harness.store.open_range(put(harness.store, data))
    first = next(pieces)

    harness.store.delete(name_of(data))

    assert first + b"".join(pieces) == data


def test_local_path_of_a_missing_blob_is_an_error(harness: DiskHarness) -> None:
    with pytest.raises(BlobMissing):
        harness.store.local_path(name_of(b"never put"))


def test_sweep_never_takes_a_blob_that_was_just_put_again(harness: DiskHarness) -> None:
    """The sweep has decided by the old age; a put slips in before its delete; what is put last has to stay."""
    stop = threading.Event()
    sha256 = name_of(b"weights")

    def sweep() -> None:
        while not stop.is_set():
            harness.open_again().delete(sha256, older_than=datetime.now(UTC) - timedelta(hours=1))

    with ThreadPoolExecutor(1) as pool:
        sweeping = pool.submit(sweep)
        for _ in range(100):
            put(harness.store, b"weights")
            assert read(harness.store, sha256) == b"weights"
            stored = harness.store.local_path(sha256)
            assert stored is not None
            os.utime(stored, (0, 0))  # now the sweep may have it
        stop.set()
        sweeping.result()


def test_disk_error_while_reading_is_said_plainly(harness: DiskHarness) -> None:
    sha256 = put(harness.store, b"weights")
    harness.root.joinpath("blobs", sha256[:2], sha256).unlink()
    harness.root.joinpath("blobs", sha256[:2], sha256).mkdir()

    with pytest.raises(StorageUnavailable, match=f"cannot read {sha256}: .*Is a directory"):
        harness.store.open_range(sha256)
