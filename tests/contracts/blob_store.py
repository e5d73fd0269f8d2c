"""The contract of every BlobStore: subclass it and give a `harness`.

class TestMyStore(BlobStoreContract):
    @pytest.fixture
    def harness(self): return MyHarness(…)
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from fma_django.storage import (
    BlobCorrupt,
    BlobMissing,
    BlobStore,
    InvalidBlobName,
    StorageUnavailable,
    StoredBlob,
)

MIB = 1 << 20
A_MOMENT_S = 0.05
NO_NAMES = (
    "",
    "../../etc/passwd",
    "ab" * 31,
    "ab" * 33,
    "AB" * 32,
    "zz" * 32,
    "ab" * 32 + "\n",
    "/" + "ab" * 31 + "a",
    "\u0661" * 64,  # a digit, but not one of ours
)
AN_HOUR = timedelta(hours=1)


class Harness(ABC):
    """A store under test, and the means to go behind its back."""

    store: BlobStore

    @abstractmethod
    def open_again(self) -> BlobStore:
        """Another object over the same stored bytes, as another process would have."""

    @abstractmethod
    def tamper(self, sha256: str, data: bytes) -> None:
        """Put other bytes where the blob is kept."""

    @abstractmethod
    def add_foreign(self, key: str) -> None:
        """Put something that is not a blob under a key of the store's place."""

    @abstractmethod
    def break_down(self) -> None:
        """Make the store unreachable or unwritable, until the test ends."""

    @abstractmethod
    def crash_in_put(self, path: Path, sha256: str) -> subprocess.CompletedProcess[str]:
        """Run `put_file` in a process that kills itself, as kill -9 does, before the blob is in its place."""


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def spooled(store: BlobStore, data: bytes) -> Path:
    """A finished file in the store's spool."""
    path = store.spool_dir() / f"test-{os.urandom(8).hex()}"
    path.write_bytes(data)
    return path


def put(store: BlobStore, data: bytes) -> str:
    sha256 = name_of(data)
    store.put_file(spooled(store, data), sha256)
    return sha256


def read(store: BlobStore, sha256: str, start: int = 0, length: int | None = None) -> bytes:
    return b"".join(store.open_range(sha256, start, length))


def listed(store: BlobStore) -> dict[str, StoredBlob]:
    return {blob.sha256: blob for blob in store.blobs()}


class BlobStoreContract:
    """The suite. `harness.store` is empty at the start of each test."""

    @pytest.fixture
    def store(self, harness: Harness) -> BlobStore:
        return harness.store

    # its owner

    def test_owner_is_kept_beside_the_blobs_and_is_none_of_them(self, harness: Harness) -> None:
        store = harness.store
        assert store.read_owner() is None

        for data in (b"the first", b"another", b""):
            store.write_owner(data)
            assert harness.open_again().read_owner() == data

        assert list(store.blobs()) == []
        assert store.remove_unfinished(datetime.now(UTC) + AN_HOUR) == 0
        assert store.read_owner() == b""

    def test_owner_that_cannot_be_asked_for_is_not_nobody(self, harness: Harness) -> None:
        harness.store.write_owner(b"somebody")
        harness.break_down()
        with pytest.raises(StorageUnavailable):
            harness.store.read_owner()
        with pytest.raises(StorageUnavailable):
            harness.store.write_owner(b"another")

    # putting and reading

    def test_blob_comes_back_as_it_was_put(self, store: BlobStore, tmp_path: Path) -> None:
        for size in (0, 1, 1000, MIB - 1, MIB, MIB + 1, 3 * MIB):
            data = os.urandom(size)
            sha256 = put(store, data)

            assert read(store, sha256) == data
            assert store.size_bytes(sha256) == size
            store.fetch(sha256, tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == data

    def test_put_takes_the_file_away(self, store: BlobStore) -> None:
        path = spooled(store, b"weights")

        store.put_file(path, name_of(b"weights"))

        assert not path.exists()
        assert list(store.spool_dir().iterdir()) == []

    def test_bytes_can_be_put_as_well(self, store: BlobStore) -> None:
        for size in (0, 1, 1000, MIB + 1):
            data = os.urandom(size)
            store.put_bytes(data, name_of(data))
            store.put_bytes(data, name_of(data))

            assert read(store, name_of(data)) == data
        assert list(store.spool_dir().iterdir()) == []

    def test_bytes_put_again_mend_a_damaged_blob(self, harness: Harness) -> None:
        sha256 = put(harness.store, b"weights")
        harness.tamper(sha256, b"damaged")

        harness.store.put_bytes(b"weights", sha256)

        assert read(harness.store, sha256) == b"weights"

    def test_file_outside_the_spool_can_be_put(self, store: BlobStore, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"weights")

        store.put_file(tmp_path / "file", name_of(b"weights"))

        assert read(store, name_of(b"weights")) == b"weights"
        assert not (tmp_path / "file").exists()

    def test_blob_is_seen_by_other_users_of_the_store(self, harness: Harness) -> None:
        sha256 = put(harness.store, b"weights")

        assert read(harness.open_again(), sha256) == b"weights"

    def test_putting_again_changes_nothing(self, store: BlobStore) -> None:
        sha256 = put(store, b"weights")

        assert put(store, b"weights") == sha256
        assert read(store, sha256) == b"weights"
        assert len(listed(store)) == 1

    def test_putting_again_makes_young_again(self, store: BlobStore) -> None:
        sha256 = put(store, b"weights")
        before = listed(store)[sha256].modified_at
        time.sleep(A_MOMENT_S)

        # The file itself is old: it is the put that counts.
        path = spooled(store, b"weights")
        os.utime(path, (0, 0))
        store.put_file(path, sha256)

        assert listed(store)[sha256].modified_at > before
        assert datetime.now(UTC) - listed(store)[sha256].modified_at < timedelta(seconds=30)

    def test_large_blob_is_put_whole(self, store: BlobStore, tmp_path: Path) -> None:
        data = os.urandom(20 * MIB + 123)
        sha256 = put(store, data)

        assert store.size_bytes(sha256) == len(data)
        assert read(store, sha256, 10 * MIB - 5, 10) == data[10 * MIB - 5 : 10 * MIB + 5]
        store.fetch(sha256, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == data

    def test_many_putting_the_same_blob_at_once_all_succeed(self, harness: Harness) -> None:
        data = os.urandom(2 * MIB)
        stores = [harness.store, harness.open_again()]

        with ThreadPoolExecutor(8) as pool:
            names = set(pool.map(lambda i: put(stores[i % 2], data), range(16)))

        assert names == {name_of(data)}
        assert read(harness.store, name_of(data)) == data
        assert len(listed(harness.store)) == 1

    def test_readers_never_see_a_part_while_it_is_put_again(self, store: BlobStore) -> None:
        data = os.urandom(3 * MIB)
        sha256 = put(store, data)
        done = threading.Event()

        def read_all() -> bool:
            found = True
            while not done.is_set():
                found = found and name_of(read(store, sha256)) == sha256
            return found

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read_all)
            for _ in range(5):
                put(store, data)
            done.set()
            assert reading.result()

    # ranges

    def test_range_is_cut_like_a_slice(self, store: BlobStore) -> None:
        data = b"0123456789"
        sha256 = put(store, data)

        for start in (0, 3, 9, 10, 11, 500):
            assert read(store, sha256, start) == data[start:]
            for length in (0, 1, 4, 10, 11, 100):
                assert read(store, sha256, start, length) == data[start : start + length], (start, length)

    def test_pieces_are_at_most_a_mebibyte(self, store: BlobStore) -> None:
        data = os.urandom(2 * MIB + 7)
        sha256 = put(store, data)

        sizes = [len(piece) for piece in store.open_range(sha256, 5)]

        assert sum(sizes) == len(data) - 5
        assert max(sizes) <= MIB
        assert min(sizes) > 0

    def test_range_left_unread_can_be_closed(self, store: BlobStore) -> None:
        pieces = store.open_range(put(store, os.urandom(3 * MIB)))
        next(pieces)

        close: Callable[[], None] = getattr(pieces, "close")  # noqa: B009 (Iterator has none; web servers look for it)
        close()

        assert list(pieces) == []

    # fetching

    def test_progress_rises_to_one(self, store: BlobStore, tmp_path: Path) -> None:
        sha256 = put(store, os.urandom(3 * MIB + 1))
        said: list[float] = []

        store.fetch(sha256, tmp_path / "copy", said.append)

        assert said == sorted(said)
        assert said[-1] == 1.0
        assert len(said) >= 4

    def test_fetch_replaces_what_is_there(self, store: BlobStore, tmp_path: Path) -> None:
        (tmp_path / "copy").write_bytes(b"older and longer")

        store.fetch(put(store, b"weights"), tmp_path / "copy")

        assert (tmp_path / "copy").read_bytes() == b"weights"

    def test_fetch_detects_damage_and_leaves_nothing(self, harness: Harness, tmp_path: Path) -> None:
        sha256 = put(harness.store, b"weights")
        for damage in (b"weightz", b"", b"weights and more", b"weigh"):
            harness.tamper(sha256, damage)

            with pytest.raises(BlobCorrupt) as error:
                harness.store.fetch(sha256, tmp_path / "copy")

            assert error.value.facts == {"sha256": sha256, "found": name_of(damage)}
            assert list(tmp_path.glob("*copy*")) == []

    def test_damage_is_mended_by_putting_again(self, harness: Harness) -> None:
        sha256 = put(harness.store, b"weights")
        harness.tamper(sha256, b"weightz")

        put(harness.store, b"weights")

        assert read(harness.store, sha256) == b"weights"

    def test_file_put_under_a_wrong_name_never_passes_for_it(self, store: BlobStore, tmp_path: Path) -> None:
        sha256 = name_of(b"weights")
        store.put_file(spooled(store, b"something else"), sha256)

        with pytest.raises(BlobCorrupt):
            store.fetch(sha256, tmp_path / "copy")

    def test_interrupted_fetch_leaves_nothing(self, store: BlobStore, tmp_path: Path) -> None:
        sha256 = put(store, os.urandom(3 * MIB))

        def lose_interest(_fraction: float) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.fetch(sha256, tmp_path / "copy", lose_interest)

        assert list(tmp_path.glob("*copy*")) == []

    def test_local_path_is_the_blob_or_none(self, store: BlobStore) -> None:
        path = store.local_path(put(store, b"weights"))

        assert path is None or path.read_bytes() == b"weights"

    def test_presigned_url_gives_the_blob_or_is_none(self, store: BlobStore) -> None:
        url = store.presigned_url(put(store, b"weights"), seconds=60)

        assert url is None or httpx.get(url).content == b"weights"

    # names

    def test_name_that_is_no_sha256_is_refused(self, store: BlobStore, tmp_path: Path) -> None:
        path = spooled(store, b"weights")
        for name in NO_NAMES:
            attempts: list[Callable[[str], object]] = [
                lambda name: store.put_file(path, name),
                lambda name: store.put_bytes(b"weights", name),
                store.open_range,
                store.local_path,
                lambda name: store.fetch(name, tmp_path / "copy"),
                store.size_bytes,
                store.delete,
                lambda name: store.presigned_url(name, seconds=60),
            ]
            for attempt in attempts:
                with pytest.raises(InvalidBlobName):
                    attempt(name)

        assert path.exists()
        assert listed(store) == {}

    # missing, deleting, listing

    def test_missing_blob_is_said_to_be_missing(self, store: BlobStore, tmp_path: Path) -> None:
        sha256 = name_of(b"never put")

        assert store.size_bytes(sha256) is None
        with pytest.raises(BlobMissing) as error:
            store.open_range(sha256)  # at the call, before anything is read
        assert error.value.facts["sha256"] == sha256
        with pytest.raises(BlobMissing):
            store.fetch(sha256, tmp_path / "copy")
        assert list(tmp_path.glob("*copy*")) == []

    def test_deleted_blob_is_gone(self, store: BlobStore) -> None:
        sha256, other = put(store, b"weights"), put(store, b"others")

        assert store.delete(sha256)

        assert store.size_bytes(sha256) is None
        assert set(listed(store)) == {other}
        assert store.delete(sha256)  # nothing to do is no error

    def test_sweep_keeps_what_is_young(self, store: BlobStore) -> None:
        sha256 = put(store, b"weights")

        assert not store.delete(sha256, older_than=datetime.now(UTC) - AN_HOUR)
        assert read(store, sha256) == b"weights"
        assert store.delete(sha256, older_than=datetime.now(UTC) + AN_HOUR)
        assert store.size_bytes(sha256) is None

    def test_listing_gives_size_and_age(self, store: BlobStore) -> None:
        blobs = {put(store, data): len(data) for data in (b"", b"a", b"weights")}

        found = listed(store)

        assert {name: blob.size_bytes for name, blob in found.items()} == blobs
        for blob in found.values():
            assert blob.modified_at.utcoffset() == timedelta(0)
            assert abs(datetime.now(UTC) - blob.modified_at) < timedelta(seconds=30)

    def test_listing_passes_over_what_is_no_blob(self, harness: Harness) -> None:
        sha256 = put(harness.store, b"weights")
        for key in ("blobs/readme.txt", "blobs/ab/notes", f"blobs/zz/{sha256}", f"other/ab/{sha256}", "file"):
            harness.add_foreign(key)

        assert set(listed(harness.store)) == {sha256}

    # crashes

    def test_spooled_file_is_not_a_blob(self, store: BlobStore) -> None:
        spooled(store, b"weights")

        assert listed(store) == {}
        assert store.size_bytes(name_of(b"weights")) is None

    def test_crash_before_the_blob_is_in_place_shows_nothing_and_can_be_cleaned(
        self, harness: Harness
    ) -> None:
        store, data = harness.store, os.urandom(6 * MIB)
        crashed = harness.crash_in_put(spooled(store, data), name_of(data))

        assert crashed.returncode == -9, crashed.stderr
        assert store.size_bytes(name_of(data)) is None
        assert listed(store) == {}
        # What it left is kept while it is young, and removed when it is old.
        assert store.remove_unfinished(datetime.now(UTC) - AN_HOUR) == 0
        assert len(list(store.spool_dir().iterdir())) == 1
        assert store.remove_unfinished(datetime.now(UTC) + AN_HOUR) >= 1
        assert list(store.spool_dir().iterdir()) == []
        assert store.remove_unfinished(datetime.now(UTC) + AN_HOUR) == 0
        assert put(store, data) in listed(store)

    def test_sweep_of_leftovers_keeps_blobs(self, store: BlobStore) -> None:
        sha256 = put(store, b"weights")

        store.remove_unfinished(datetime.now(UTC) + AN_HOUR)

        assert read(store, sha256) == b"weights"

    def test_folder_in_the_spool_goes_when_all_in_it_is_old(self, store: BlobStore) -> None:
        folder = store.spool_dir() / "round-7"
        folder.mkdir()
        (folder / "update").write_bytes(b"weights")
        os.utime(folder, (0, 0))

        assert store.remove_unfinished(datetime.now(UTC) - AN_HOUR) == 0  # the file in it is young
        os.utime(folder / "update", (0, 0))
        assert store.remove_unfinished(datetime.now(UTC) - AN_HOUR) == 1
        assert not folder.exists()

    # availability

    def test_ping_of_a_sound_store_returns_and_leaves_no_blob(self, store: BlobStore) -> None:
        store.ping()

        assert listed(store) == {}

    def test_broken_store_is_said_to_be_unavailable(self, harness: Harness, tmp_path: Path) -> None:
        store = harness.store
        put(store, b"weights")
        path = tmp_path / "file"
        path.write_bytes(b"other weights")
        harness.break_down()

        with pytest.raises(StorageUnavailable) as error:
            store.put_file(path, name_of(b"other weights"))
        assert error.value.facts["store"] in str(error.value)
        assert path.read_bytes() == b"other weights"
        with pytest.raises(StorageUnavailable):
            store.ping()

    def test_store_works_across_a_fork(self, harness: Harness) -> None:
        # django-q and the HTTP server fork after settings are read, possibly after the store was used.
        sha256 = put(harness.store, b"weights")
        child = os.fork()
        if not child:
            try:
                os._exit(0 if read(harness.store, sha256) == b"weights" else 1)
            finally:
                os._exit(2)
        assert read(harness.store, sha256) == b"weights"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def run_until_killed(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python source that is expected to kill itself."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
