import hashlib
import io
import os
import pickle
import threading
from itertools import cycle, repeat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fma_core.arrays.codecs import receive as receive_module
from fma_core.arrays.codecs.header import canonical_header
from fma_core.arrays.codecs.limits import DEFAULT_LIMITS, Limits
from fma_core.arrays.codecs.receive import Received, receive_canonical, receive_safetensors, write_arrays
from fma_core.arrays.codecs.safetensors import encode
from fma_core.arrays.dtypes import FLOATS, NUMPY_DTYPES
from fma_core.arrays.spec import Spec
from fma_core.errors import (
    DtypeMismatch,
    MalformedSafetensors,
    MissingArray,
    NonFiniteValue,
    ShapeMismatch,
    TooLarge,
    TruncatedBody,
    UnexpectedArray,
    ValueOutOfRange,
)
from tests.core.weights import arrays, lay_out, new_file, pieces_of


@pytest.fixture(params=[11, 64, 2**20])
def piece_bytes(request, monkeypatch):
    monkeypatch.setattr(receive_module, "PIECE_BYTES", request.param)
    return request.param


def received(body, tmp_path, *, spec=None, limits=DEFAULT_LIMITS, sizes=None):
    with new_file(tmp_path / "received") as fd:
        result = receive_safetensors(
            pieces_of(body, sizes), fd, size_bytes=len(body), spec=spec, limits=limits
        )
    return result, (tmp_path / "received").read_bytes()


@pytest.mark.usefixtures("piece_bytes")
@settings(max_examples=60)
@given(
    weights=arrays(),
    random=st.randoms(),
    metadata=st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
    sizes=st.lists(st.integers(1, 50), min_size=1),
)
def test_any_order_and_any_pieces_give_the_canonical_file(weights, random, metadata, sizes, tmp_path_factory):
    body = lay_out(weights, random.sample(sorted(weights), len(weights)), metadata)
    result, file = received(body, tmp_path_factory.mktemp("r"), spec=Spec.of(weights), sizes=cycle(sizes))
    assert file == encode(weights)
    assert result.spec == Spec.of(weights)
    assert result.sha256 == hashlib.sha256(file).hexdigest()
    assert result.wire_sha256 == hashlib.sha256(body).hexdigest()
    assert result.size_bytes == len(file)


def test_a_canonical_body_is_stored_as_it_is(tmp_path):
    body = encode({"w": np.arange(1_000_003, dtype=np.float32), "a": np.ones(3, bool)})
    result, file = received(body, tmp_path)
    assert file == body
    assert result.sha256 == result.wire_sha256


def test_pieces_are_small_and_nothing_is_read_beyond_the_body(tmp_path):
    body = encode({"w": np.ones(1_000_003, np.float32)})
    source, asked = io.BytesIO(body + b"next request"), []

    def read(size: int) -> bytes:
        asked.append(size)
        return source.read(size)

    with new_file(tmp_path / "f") as fd:
        receive_safetensors(read, fd, size_bytes=len(body), spec=None)
    assert max(asked) <= 2**20
    assert source.tell() == len(body)


@given(weights=arrays())
def test_arrays_in_memory_give_the_same_file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("w") / "f"
    with new_file(path) as fd:
        result = write_arrays({name: np.array(array, order="F") for name, array in weights.items()}, fd)
    assert path.read_bytes() == encode(weights)
    assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (result.spec, result.size_bytes, result.wire_sha256) == (
        Spec.of(weights),
        path.stat().st_size,
        None,
    )


@pytest.mark.parametrize("dtype", sorted(FLOATS))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("order", ["abc", "cba"])
def test_a_non_finite_value_is_found_at_every_position(dtype, bad, order, tmp_path, monkeypatch):
    monkeypatch.setattr(receive_module, "PIECE_BYTES", 24)  # boundaries inside and between the arrays
    for position in range(11):
        weights = {
            "a": np.ones(3, bool),
            "b": np.ones(11, NUMPY_DTYPES[dtype]),
            "c": np.ones(5, NUMPY_DTYPES[dtype]),
        }
        weights["b"][position] = bad
        with pytest.raises(NonFiniteValue) as raised:
            received(lay_out(weights, list(order)), tmp_path, sizes=repeat(7))
        assert raised.value.facts == {"array": "b", "index": position}


@pytest.mark.parametrize("position", range(5))
def test_a_boolean_byte_of_two_is_found_at_every_position(position, tmp_path, monkeypatch):
    monkeypatch.setattr(receive_module, "PIECE_BYTES", 8)
    body = bytearray(lay_out({"a": np.ones(3), "b": np.zeros(5, bool)}, ["a", "b"]))
    body[len(body) - 5 + position] = 2
    with pytest.raises(ValueOutOfRange) as raised:
        received(bytes(body), tmp_path)
    assert raised.value.facts == {"array": "b", "index": position}


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 50, -1])
def test_a_body_that_ends_early_is_truncated(cut, tmp_path):
    body = encode({"w": np.ones(300_000)})
    with new_file(tmp_path / "f") as fd, pytest.raises(TruncatedBody, match="before its announced end"):
        receive_safetensors(pieces_of(body[:cut]), fd, size_bytes=len(body), spec=None)


W = {"b": np.zeros(4, np.float32), "w": np.zeros((10, 4), np.float32)}


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ({**W, "w": np.zeros((4, 10), np.float32)}, ShapeMismatch),
        ({**W, "w": np.zeros((10, 4), np.int32)}, DtypeMismatch),
        ({**W, "x": np.zeros(1)}, UnexpectedArray),
        ({"w": W["w"]}, MissingArray),
    ],
)
def test_another_spec_is_refused_before_any_data_is_read(sent, error, tmp_path):
    body = encode(sent)
    source = io.BytesIO(body)
    with new_file(tmp_path / "f") as fd, pytest.raises(error):
        receive_safetensors(source.read, fd, size_bytes=len(body), spec=Spec.of(W))
    assert source.tell() <= 8 + int.from_bytes(body[:8], "little")
    assert (tmp_path / "f").read_bytes() == b""


def test_trailing_bytes_are_refused(tmp_path):
    with pytest.raises(MalformedSafetensors, match="follow the header"):
        received(encode(W) + b"\0", tmp_path)


@pytest.mark.parametrize(
    "limits", [Limits(max_bytes=10_000), Limits(max_arrays=1), Limits(max_header_bytes=50)]
)
def test_limits(limits, tmp_path):
    weights = {"v": np.ones(999), "w": np.ones(999)}
    with pytest.raises(TooLarge):
        received(encode(weights), tmp_path, limits=limits)
    if limits.max_header_bytes > 50:
        with new_file(tmp_path / "f") as fd, pytest.raises(TooLarge):
            write_arrays(weights, fd, limits=limits)


def test_a_known_spec_bounds_the_header(tmp_path):
    body = lay_out(W, ["w", "b"], {"note": "x" * 2_000_000})
    received(body, tmp_path)
    with pytest.raises(TooLarge, match="the header has"):
        received(body, tmp_path, spec=Spec.of(W))


def test_writes_that_stop_early_are_continued(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, bytes(data[:100]), offset))
    weights = {"w": np.arange(500, dtype=np.float32)}
    _, file = received(encode(weights), tmp_path)
    assert file == encode(weights)


def test_many_small_arrays_of_changing_dtypes(tmp_path):
    weights = {f"layer.{i}": np.full(3, i % 2, np.float16 if i % 2 else np.float32) for i in range(5_000)}
    result, file = received(encode(weights), tmp_path, spec=Spec.of(weights))
    assert file == encode(weights)
    assert len(result.spec.arrays) == 5_000


def test_a_large_file_is_on_its_way_to_the_disk_before_its_end(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda fd, start, length, how: begun.append((start, start + length))
    )
    body = encode({f"w{i}": np.ones(2**20, np.float32) for i in range(5)})
    received(body, tmp_path)
    assert [start for start, _ in begun] == [0, *(stop for _, stop in begun[:-1])]
    assert begun[-1][1] == len(body)
    assert len(begun) == 5


def test_a_spec_keeps_its_header():
    spec = Spec.of(W)
    assert canonical_header(spec) is canonical_header(Spec.of(W))
    assert hash(pickle.loads(pickle.dumps(spec))) == hash(spec)
    assert "_hash" not in pickle.loads(pickle.dumps(spec)).__dict__


@given(weights=arrays())
def test_a_canonical_body_is_known_without_reading_its_header(weights):
    body, spec = encode(weights), Spec.of(weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("json.loads", None)
        result = receive_canonical(body, spec)
    sha256 = hashlib.sha256(body).hexdigest()
    assert result == Received(spec, sha256, len(body), sha256)
    assert receive_canonical(body + b"x", spec) is None
    assert receive_canonical(lay_out(weights, sorted(weights), {"a": "b"}), spec) is None
    assert receive_canonical(body, Spec.of({"other": np.ones(3)})) is None


@pytest.mark.parametrize("dtype", [*sorted(FLOATS), "bool"])
def test_bad_values_of_canonical_bodies_are_found_at_every_position(dtype):
    numpy_dtype = NUMPY_DTYPES[dtype]
    weights = {
        "a": np.ones(3, bool),
        "b": np.ones(4, numpy_dtype),
        "c": np.ones(5, numpy_dtype),
        "d": np.ones(2),
    }
    spec, size = Spec.of(weights), numpy_dtype.itemsize
    bad = b"\2" if dtype == "bool" else np.array(np.nan).astype(numpy_dtype).tobytes()
    for name, start, count in (("b", 3, 4), ("c", 3 + 4 * size, 5)):
        for index in range(count):
            body = bytearray(encode(weights))
            at = len(canonical_header(spec)) + start + index * size
            body[at : at + size] = bad
            with pytest.raises(ValueOutOfRange if dtype == "bool" else NonFiniteValue) as raised:
                receive_canonical(bytes(body), spec)
            assert raised.value.facts == {"array": name, "index": index}


def test_no_thread_outlives_a_body(tmp_path):
    body = encode({"w": np.ones(2**20, np.float32)})
    with new_file(tmp_path / "f") as fd, pytest.raises(TruncatedBody):
        receive_safetensors(pieces_of(body[:-9]), fd, size_bytes=len(body))
    assert not [thread for thread in threading.enumerate() if thread.name == "sha256"]
