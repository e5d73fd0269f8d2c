import hashlib
import json
from itertools import cycle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fma_core.arrays.codecs import receive as receive_module
from fma_core.arrays.codecs.quantise import narrowings
from fma_core.arrays.codecs.receive import receive_safetensors
from fma_core.arrays.codecs.safetensors import decode, encode
from fma_core.arrays.dtypes import NUMPY_DTYPES, TAGS
from fma_core.arrays.spec import Spec
from fma_core.errors import DtypeMismatch, InvalidQuantisation, NonFiniteValue, TooLarge, ValueOutOfRange
from tests.core.weights import arrays, lay_out, new_file, pieces_of

W: dict[str, np.ndarray] = {
    "b": np.zeros(4, np.float32),
    "n": np.ones(2, np.int64),
    "w": np.ones((10, 4), np.float64),
}
SPEC = Spec.of(W)
FLOAT32 = np.finfo(np.float32)


def send(weights, kind, *, tmp_path, spec, order=None, sizes=None):
    """Quantise, lay out by a writer that is not ours, receive; the arrays that are stored."""
    found, metadata = narrowings(weights, kind)
    sent = {
        name: found[name](array.reshape(-1)).reshape(array.shape) if name in found else array
        for name, array in weights.items()
    }
    body = lay_out(sent, order or sorted(sent), metadata)
    return receive(body, tmp_path=tmp_path, spec=spec, sizes=sizes)


def receive(body, *, tmp_path, spec, sizes=None):
    with new_file(tmp_path / "f") as fd:
        result = receive_safetensors(pieces_of(body, sizes), fd, size_bytes=len(body), spec=spec)
    stored = (tmp_path / "f").read_bytes()
    assert result.sha256 == hashlib.sha256(stored).hexdigest()
    assert result.wire_sha256 == hashlib.sha256(body).hexdigest()
    assert (result.spec, result.size_bytes) == (spec or result.spec, len(stored))
    return decode(stored)


def int8_body(scales, **changed):
    weights = {"b": np.zeros(4, np.int8), "n": W["n"], "w": np.full((10, 4), 2, np.int8), **changed}
    metadata = {"fma.quantised": "int8"}
    if scales is not None:
        metadata["fma.scales"] = scales if isinstance(scales, str) else json.dumps(scales)
    return lay_out(weights, sorted(weights), metadata)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@settings(max_examples=60)
@given(weights=arrays(), random=st.randoms(), sizes=st.lists(st.integers(1, 50), min_size=1))
def test_narrower_floats_come_back_rounded_to_the_nearest(kind, weights, random, sizes, tmp_path_factory):
    narrow = NUMPY_DTYPES[kind]
    expected = {}
    for name, array in weights.items():
        if array.dtype in (np.float32, np.float64):
            with np.errstate(over="ignore"):
                array[~np.isfinite(array.astype(narrow).astype(np.float64))] = 1.5
            expected[name] = array.astype(narrow).astype(array.dtype)
        else:
            expected[name] = array
    order = random.sample(sorted(weights), len(weights))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receive_module, "WIDENED_PIECE_BYTES", 24)
        found = send(
            weights,
            kind,
            tmp_path=tmp_path_factory.mktemp("q"),
            spec=Spec.of(weights),
            order=order,
            sizes=cycle(sizes),
        )
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


@settings(max_examples=100)
@given(weights=arrays(dtypes=("float32", "float64", "bfloat16", "float16", "int8")), random=st.randoms())
def test_int8_comes_back_within_half_a_scale(weights, random, tmp_path_factory):
    for array in weights.values():
        if array.dtype == np.float64:
            array[np.abs(array) > float(FLOAT32.max)] = 3e38
    found = send(
        weights,
        "int8",
        tmp_path=tmp_path_factory.mktemp("q"),
        spec=Spec.of(weights),
        order=random.sample(sorted(weights), len(weights)),
    )
    for name, array in weights.items():
        if array.dtype == np.int8:
            assert found[name].tobytes() == array.tobytes()
            continue
        sent = array.astype(np.float64)
        back = found[name].astype(np.float64)
        scale = np.abs(sent).max(initial=0.0) / 127
        # Beside it: what float32 rounds of 127 scales, the smallest float32, and the last bit of the array's own dtype.
        own = {"float16": 2**-10, "bfloat16": 2**-7}.get(array.dtype.name, 2**-22) * np.abs(sent)
        assert (np.abs(back - sent) <= scale * (0.5 + 2**-14) + 2.0**-142 + own).all()


def test_int8_is_scale_times_integer_in_float32(tmp_path):
    found = receive(
        int8_body({"b": 1.0, "w": 0.1}, w=np.arange(-20, 20, dtype=np.int8).reshape(10, 4)),
        tmp_path=tmp_path,
        spec=SPEC,
    )
    expected = np.arange(-20, 20).astype(np.float32).reshape(10, 4) * np.float32(0.1)
    assert found["w"].dtype == np.float64
    assert (found["w"] == expected.astype(np.float64)).all()
    assert found["n"].tolist() == [1, 1]


def test_arrays_that_are_not_narrower_are_taken_as_they_are(tmp_path):
    weights = {**W, "b": np.full(4, 0.5, np.float16)}
    found = receive(
        lay_out(weights, ["w", "n", "b"], {"fma.quantised": "float16"}), tmp_path=tmp_path, spec=SPEC
    )
    assert found["b"].tolist() == [0.5] * 4
    assert found["w"].tolist() == W["w"].tolist()


def test_undeclared_narrower_arrays_are_another_dtype(tmp_path):
    weights = {**W, "b": np.zeros(4, np.float16)}
    with pytest.raises(DtypeMismatch):
        receive(lay_out(weights, sorted(weights)), tmp_path=tmp_path, spec=SPEC)
    with pytest.raises(DtypeMismatch):
        receive(
            lay_out(weights, sorted(weights), {"fma.quantised": "bfloat16"}), tmp_path=tmp_path, spec=SPEC
        )


def test_integers_are_not_quantised(tmp_path):
    with pytest.raises(DtypeMismatch, match="'n'"):
        receive(int8_body({"b": 1, "w": 1}, n=np.ones(2, np.int8)), tmp_path=tmp_path, spec=SPEC)


@pytest.mark.parametrize(
    "scales",
    [
        None,
        "",
        "[]",
        "1",
        "[" * 100_000,
        {},
        {"b": 1.0},
        {"b": 1.0, "w": 1.0, "x": 1.0},
        {"b": 1.0, "w": 1.0, "n": 1.0},
        {"b": 1.0, "w": "1.0"},
        {"b": 1.0, "w": True},
        {"b": 1.0, "w": None},
        {"b": 1.0, "w": -0.5},
        {"b": 1.0, "w": 1e39},
        {"b": 1.0, "w": 10**400},
        '{"b": 1.0, "w": NaN}',
        '{"b": 1.0, "w": Infinity}',
        '{"b": 1.0, "w": 1.0, "w": 2.0}',
        '{"b": 1.0, "w": 1' + "0" * 5000 + "}",
    ],
    ids=lambda scales: str(scales)[:30],
)
def test_hostile_scales_are_refused_before_the_data(scales, tmp_path):
    body = int8_body(scales)
    asked = []

    def read(size):
        asked.append(size)
        return source(size)

    source = pieces_of(body)
    with new_file(tmp_path / "f") as fd, pytest.raises(InvalidQuantisation):
        receive_safetensors(read, fd, size_bytes=len(body), spec=SPEC)
    assert sum(asked) <= 8 + int.from_bytes(body[:8], "little")


def test_a_scale_that_overflows_is_refused_at_its_value(tmp_path):
    values = np.ones((10, 4), np.int8)
    values[3, 1] = 2
    with pytest.raises(NonFiniteValue) as raised:
        receive(int8_body({"b": 1.0, "w": 3e38}, w=values), tmp_path=tmp_path, spec=SPEC)
    assert raised.value.facts == {"array": "w", "index": 13}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_value_beyond_a_narrow_model_is_refused(dtype, tmp_path):
    spec = Spec.of({"w": np.zeros(1, NUMPY_DTYPES[dtype])})
    metadata = {"fma.quantised": "int8", "fma.scales": '{"w": 3e36}'}
    body = lay_out({"w": np.full(1, 127, np.int8)}, ["w"], metadata)
    with pytest.raises(NonFiniteValue):
        receive(body, tmp_path=tmp_path, spec=spec)


@pytest.mark.parametrize(
    "metadata",
    [{"fma.quantised": "int4"}, {"fma.scales": "{}"}, {"fma.quantised": "float16", "fma.scales": "{}"}],
    ids=str,
)
def test_declarations_that_make_no_sense_are_refused(metadata, tmp_path):
    with pytest.raises(InvalidQuantisation):
        receive(lay_out(W, sorted(W), metadata), tmp_path=tmp_path, spec=SPEC)


def test_first_weights_must_come_as_they_are(tmp_path):
    with pytest.raises(InvalidQuantisation, match="first weights"):
        receive(int8_body({"b": 1.0, "w": 1.0}), tmp_path=tmp_path, spec=None)


def test_scales_are_no_way_around_the_limit_of_the_header(tmp_path):
    with pytest.raises(TooLarge, match="the header has"):
        receive(int8_body({"b": 1.0, "w": 1.0, "x" * 1_200_000: 1.0}), tmp_path=tmp_path, spec=SPEC)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_what_cannot_be_narrower_is_refused_where_it_is_made(kind):
    weights = {"w": np.array([1.0, 1e300])}
    with pytest.raises(ValueOutOfRange, match="'w'"):
        narrowings(weights, kind)[0]["w"](weights["w"])


def test_nan_has_no_scale():
    with pytest.raises(NonFiniteValue):
        narrowings({"w": np.array([1.0, np.nan])}, "int8")


def test_our_own_header_is_read_by_the_safetensors_library(tmp_path):
    from safetensors import safe_open

    (tmp_path / "f").write_bytes(int8_body({"b": 0.5, "w": 1e-9}))
    with safe_open(tmp_path / "f", "np") as file:
        assert file.metadata()["fma.quantised"] == "int8"
        assert json.loads(file.metadata()["fma.scales"]) == {"b": 0.5, "w": 1e-9}
    assert encode(W)  # and the plain one by test_safetensors
    assert TAGS["int8"] == "I8"
