import hashlib
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fma_core.arrays.codecs import zstd
from fma_core.arrays.codecs.limits import DEFAULT_LIMITS, Limits
from fma_core.arrays.codecs.receive import receive_safetensors
from fma_core.arrays.codecs.safetensors import encode
from fma_core.arrays.codecs.zstd import decoded, encoded, is_zstd
from fma_core.arrays.spec import Spec
from fma_core.errors import (
    MalformedSafetensors,
    MalformedZstd,
    ShapeMismatch,
    TooLarge,
    TruncatedBody,
    UnsupportedCoding,
)
from tests.core.weights import arrays, new_file, pieces_of

library = zstd.zstd  # type: ignore[attr-defined]
W = {"w": np.arange(300_000, dtype=np.float32)}


def receive(frame, tmp_path, *, spec=None, limits=DEFAULT_LIMITS, size_bytes=None):
    with new_file(tmp_path / "f") as fd:
        size = len(frame) if size_bytes is None else size_bytes
        result = receive_safetensors(
            pieces_of(frame), fd, size_bytes=size, spec=spec, limits=limits, is_zstd=True
        )
    return result, (tmp_path / "f").read_bytes()


@settings(max_examples=40)
@given(weights=arrays(), cuts=st.lists(st.integers(1, 100), min_size=1))
def test_a_frame_gives_the_file_that_was_compressed(weights, cuts, tmp_path_factory):
    body = encode(weights)
    pieces = [body[i : i + cuts[0]] for i in range(0, len(body), cuts[0])]
    frame = b"".join(encoded(pieces))
    result, file = receive(frame, tmp_path_factory.mktemp("z"), spec=Spec.of(weights))
    assert file == body
    assert result.sha256 == hashlib.sha256(body).hexdigest()
    assert result.wire_sha256 == hashlib.sha256(frame).hexdigest()


def test_frames_of_others_are_read(tmp_path):
    for options in (
        {"level": 1},
        {"level": 19},
        {"options": {library.CompressionParameter.checksum_flag: 1}},
    ):
        assert receive(library.compress(encode(W), **options), tmp_path)[1] == encode(W)


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_no_coding(coding):
    assert not is_zstd(coding)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd, zstd", "deflate", "zstd;q=1", "x" * 10_000])
def test_other_codings_are_not_read(coding):
    with pytest.raises(UnsupportedCoding):
        is_zstd(coding)


def test_a_frame_with_a_larger_window_is_refused(tmp_path):
    wide = {
        library.CompressionParameter.window_log: 24,
        library.CompressionParameter.content_size_flag: 0,
    }
    frame = library.ZstdCompressor(options=wide)
    data = frame.compress(encode(W)) + frame.flush()
    with pytest.raises(MalformedZstd, match="zstd frame"):
        receive(data, tmp_path)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda frame: b"", MalformedZstd),
        (lambda frame: b"no zstd at all" * 10, MalformedZstd),
        (lambda frame: frame[: len(frame) // 2], MalformedZstd),
        (lambda frame: frame[:-1], MalformedZstd),
        (lambda frame: frame + b"x", MalformedZstd),
        (lambda frame: frame + frame, MalformedZstd),
        (lambda frame: library.compress(encode(W) + b"x"), MalformedSafetensors),
        (lambda frame: library.compress(encode(W)[:-1]), TruncatedBody),
        (lambda frame: library.compress(b"x"), TruncatedBody),
    ],
    ids=["empty", "other", "half", "cut", "more", "twice", "longer", "shorter", "tiny"],
)
def test_damaged_frames_are_refused(damage, error, tmp_path):
    with pytest.raises(error):
        receive(damage(library.compress(encode(W))), tmp_path)


def test_a_body_that_stops_early_is_truncated(tmp_path):
    frame = library.compress(encode(W))
    with pytest.raises(TruncatedBody, match="announced end"):
        receive(frame[:-10], tmp_path, size_bytes=len(frame))


def test_a_bomb_is_not_decoded(tmp_path):
    """30 KB that become a gigabyte: what is not the model's is refused by its header."""
    bomb = b"".join(encoded([encode({"w": np.zeros(2**28, np.float32)})[:100]] + [bytes(2**20)] * 16))
    tracemalloc.start()
    with pytest.raises(ShapeMismatch):
        receive(bomb, tmp_path, spec=Spec.of(W))
    with pytest.raises(TooLarge):
        receive(bomb, tmp_path, limits=Limits(max_bytes=2**20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


def test_what_is_not_asked_for_is_not_decoded():
    frame = b"".join(encoded([bytes(2**20)] * 64))
    read = decoded(pieces_of(frame), size_bytes=len(frame))
    tracemalloc.start()
    assert read(100) == bytes(100)
    assert tracemalloc.get_traced_memory()[1] < 2**18
    tracemalloc.stop()


def test_large_compressed_bodies_count_against_the_limit(tmp_path):
    with pytest.raises(TooLarge):
        receive(os.urandom(2000), tmp_path, limits=Limits(max_bytes=1000))
