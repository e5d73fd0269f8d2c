"""The cost of storing a body, in counts that no machine changes: bytes hashed, written, read again; files synced."""

import hashlib
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fma_core.arrays.codecs.safetensors import encode
from fma_core.arrays.spec import Spec
from fma_django.record.weights import SafetensorsBody, store_weights
from fma_django.storage import get_store
from tests.core.weights import lay_out

Weights = dict[str, np.ndarray[Any, Any]]
SMALL: Weights = {"b": np.ones(3, np.float32), "w": np.arange(1000, dtype=np.float32)}
LARGE: Weights = {"b": np.ones(3, np.float32), "w": np.arange(2**19, dtype=np.float32)}
BOTH = pytest.mark.parametrize("weights", [SMALL, LARGE], ids=["small", "large"])


@pytest.fixture
def counts(storage: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes by what was done with them, and how often anything was forced to the disk."""
    found: Counter[str] = Counter()
    pwrite, pread, fsync, sha256 = os.pwrite, os.pread, os.fsync, hashlib.sha256

    def count_written(fd: int, data: bytes, offset: int) -> int:
        found["written"] += len(data)
        return pwrite(fd, data, offset)

    def count_read(fd: int, size: int, offset: int) -> bytes:
        piece = pread(fd, size, offset)
        found["read"] += len(piece)
        return piece

    def count_forced(fd: int) -> None:
        found["forced"] += 1
        fsync(fd)

    class Counting:
        def __init__(self, data: bytes = b"") -> None:
            self._digest = sha256()
            self.update(data)

        def update(self, data: bytes) -> None:
            found["hashed"] += len(data)
            self._digest.update(data)

        def hexdigest(self) -> str:
            return self._digest.hexdigest()

    monkeypatch.setattr(os, "pwrite", count_written)
    monkeypatch.setattr(os, "pread", count_read)
    monkeypatch.setattr(os, "fsync", count_forced)
    monkeypatch.setattr(hashlib, "sha256", Counting)
    return found


def store(body: bytes, weights: Weights, wire_sha256: str | None = None) -> None:
    sent = SafetensorsBody(io.BytesIO(body).read, len(body), wire_sha256)
    stored = store_weights(sent, spec=Spec.of(weights))
    assert b"".join(get_store().open_range(stored.sha256)) == encode(weights)


@BOTH
def test_a_canonical_body_is_hashed_and_written_once_and_not_read_again(
    counts: Counter[str], weights: Weights
) -> None:
    body = encode(weights)
    said = hashlib.sha256(body).hexdigest()
    store(body, weights)
    counts.clear()  # the folders are there

    store(body, weights, said)

    assert counts == {"hashed": len(body), "written": len(body), "forced": 2}


@BOTH
def test_what_nobody_asks_for_is_not_hashed(counts: Counter[str], weights: Weights) -> None:
    body = lay_out(weights, ["b", "w"], {"note": "of another writer"})
    store(body, weights)

    assert counts["hashed"] == len(encode(weights))

    store(body, weights, hashlib.sha256(body).hexdigest())

    assert counts["hashed"] == 2 * len(encode(weights)) + 2 * len(body)  # one of these is the test's own


def test_another_order_is_read_once_more(counts: Counter[str]) -> None:
    store(lay_out(LARGE, ["w", "b"]), LARGE)

    assert counts["read"] == counts["written"] == counts["hashed"] == len(encode(LARGE))
