"""Chunks of remote blobs: the right bytes, few requests, and bounded room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fma_django.storage import StorageUnavailable
from fma_django.storage import chunk_cache as module
from fma_django.storage.chunk_cache import ChunkCache

BLOBS = {letter: os.urandom(1000) for letter in "ab"}
SIZE = 1000


class Blobs:
    """A remote store that counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.is_away = False

    def read_range(self, sha256: str, start: int, stop: int) -> bytes:
        if self.is_away:
            raise StorageUnavailable("the store is away")
        self.asked.append((sha256, start, stop))
        return BLOBS[sha256][start:stop]


class Caches:
    """Caches that are closed when the test is over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[ChunkCache] = []

    def __call__(self, blobs: Any, *, max_bytes: int = 10_000) -> ChunkCache:
        self.made.append(ChunkCache(blobs, self.folder, chunk_bytes=64, max_bytes=max_bytes))
        return self.made[-1]


@pytest.fixture
def cache_of(tmp_path: Path) -> Iterator[Caches]:
    caches = Caches(tmp_path)
    yield caches
    for cache in caches.made:
        cache.close()


def read(cache: ChunkCache, name: str, start: int, stop: int) -> bytes:
    buffer = bytearray(stop - start)
    view = memoryview(buffer)
    while view:
        count = cache.read_into(name, SIZE, view, stop - len(view))
        view = view[count:]
    return bytes(buffer)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (63, 65), (64, 128), (10, 990), (990, 1000), (0, 1000)])
def test_any_range_is_the_blobs(cache_of: Caches, start: int, stop: int) -> None:
    assert read(cache_of(Blobs()), "a", start, stop) == BLOBS["a"][start:stop]


def test_small_steps_cost_one_request_for_each_chunk(cache_of: Caches) -> None:
    blobs = Blobs()
    cache = cache_of(blobs)
    for start in range(0, 1000, 8):
        read(cache, "a", start, start + 8)

    assert blobs.asked == [("a", start, min(start + 64, 1000)) for start in range(0, 1000, 64)]


def test_what_does_not_fit_is_fetched_again(cache_of: Caches) -> None:
    blobs = Blobs()
    cache = cache_of(blobs, max_bytes=128)
    for name in ("a", "b", "a"):
        assert read(cache, name, 0, 1000) == BLOBS[name]

    assert len(blobs.asked) == 3 * 16


def test_threads_that_push_out_each_others_chunks_get_the_right_bytes(cache_of: Caches) -> None:
    cache = cache_of(Blobs(), max_bytes=192)
    starts = [(name, start) for start in range(0, 992, 31) for name in "ab"] * 4
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda item: read(cache, *item, item[1] + 8), starts))  # type: ignore[call-arg]

    assert found == [BLOBS[name][start : start + 8] for name, start in starts]


def test_fetching_ahead_saves_the_requests_later(cache_of: Caches) -> None:
    blobs = Blobs()
    cache = cache_of(blobs)
    cache.fetch_ahead("a", SIZE, 100, 200)

    assert read(cache, "a", 100, 200) == BLOBS["a"][100:200]
    assert sorted(blobs.asked) == [("a", 64, 128), ("a", 128, 192), ("a", 192, 256)]


def test_a_store_that_was_away_is_asked_again(cache_of: Caches) -> None:
    blobs = Blobs()
    cache = cache_of(blobs)
    blobs.is_away = True
    with pytest.raises(StorageUnavailable):
        read(cache, "a", 0, 8)
    blobs.is_away = False

    assert read(cache, "a", 0, 8) == BLOBS["a"][:8]


def test_a_full_disk_is_no_unreadable_blob(cache_of: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(Blobs(), max_bytes=64)

    def refuse(*_: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_all", refuse)
        with pytest.raises(StorageUnavailable, match="no room"):
            read(cache, "a", 0, 8)

    assert read(cache, "a", 0, 8) == BLOBS["a"][:8]


def test_nothing_of_it_has_a_name(cache_of: Caches) -> None:
    cache = cache_of(Blobs())
    read(cache, "a", 0, 1000)

    assert list(cache_of.folder.iterdir()) == []
