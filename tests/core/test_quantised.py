import hashlib
import json
import math
from fractions import Fraction
from itertools import cycle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fma_core.arrays.codecs import receive as receive_module
from fma_core.arrays.codecs.json_layouts import arrays_of
from fma_core.arrays.codecs.quantise import BLOCK, blocks, narrowings
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


def nearest(values, kind):
    """The value of a dtype nearest to each float64, ties to the even one, by exact fractions."""
    dtype = NUMPY_DTYPES[kind]
    rounded = []
    for value in values.reshape(-1).tolist():
        about = np.array([value]).astype(dtype)
        bits = about.view(np.uint16).astype(np.int64)
        near = (bits + np.arange(-1, 2)) & 0xFFFF
        candidates = near.astype(np.uint16).view(dtype).astype(np.float64)
        exact = Fraction(value)
        keys = [
            (abs(Fraction(candidate) - exact), bit % 2, bit != bits[0])
            if np.isfinite(candidate) and np.signbit(candidate) == np.signbit(about[0])
            else (math.inf, 0, True)
            for candidate, bit in zip(candidates.tolist(), near.tolist(), strict=True)
        ]
        rounded.append(candidates[keys.index(min(keys))])
    return np.array(rounded).reshape(values.shape)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "value", [1 + 2**-8 + 2**-40, 1 + 3 * 2**-8 - 2**-40, 1 + 2**-8, 2**-130 * (1 + 2**-50)]
)
def test_float64_is_rounded_to_bfloat16_once(value, sign, tmp_path):
    # By way of float32, which drops the last bit, the first of them becomes a tie, and then 1.
    weights = {"w": np.array([sign * value])}
    found = send(weights, "bfloat16", tmp_path=tmp_path, spec=Spec.of(weights))
    assert found["w"].tolist() == nearest(weights["w"], "bfloat16").tolist()
    by_json, _ = arrays_of({"w": [sign * value]}, spec=Spec.of({"w": np.zeros(1, NUMPY_DTYPES["bfloat16"])}))
    assert by_json["w"].astype(np.float64).tolist() == found["w"].tolist()


@pytest.mark.parametrize("largest", [3.5e38, 4e38, 1e40, 4.3e40, 1e300])
def test_int8_of_what_float32_cannot_hold_is_refused_before_it_is_sent(largest):
    with pytest.raises(ValueOutOfRange, match="beyond float32; int8 cannot scale them"):
        narrowings({"w": np.array([1.0, -largest])}, "int8")


@pytest.mark.parametrize("largest", [float(FLOAT32.max), 3.4e38, 1.0, 1e-30])
def test_int8_of_the_largest_float32_is_taken_by_the_server(largest, tmp_path):
    weights = {"w": np.array([largest, -largest, 0.0])}
    for kind in ("int8", "int8_stochastic"):
        found = send(weights, kind, tmp_path=tmp_path, spec=Spec.of(weights))
        assert found["w"] == pytest.approx(weights["w"], rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_stochastic_int8_is_right_in_the_mean_of_many_clients(dtype, tmp_path):
    # Far below half a scale: rint makes 0 of them at every client.
    small = 0.003
    weights = {"w": np.full(200_000, small, NUMPY_DTYPES[dtype]), "one": np.ones(1, NUMPY_DTYPES[dtype])}
    weights["w"][0] = 1
    found = send(weights, "int8_stochastic", tmp_path=tmp_path, spec=Spec.of(weights))["w"].astype(np.float64)
    scale, value = 1 / 127, float(weights["w"][1])
    assert set(np.rint(found[1:] / scale).tolist()) == {0.0, 1.0}
    deviation = scale * math.sqrt(value / scale * (1 - value / scale) / len(found))
    # The product with q = 1 is rounded to the dtype.
    assert abs(found[1:].mean() - value) < 5 * deviation + value * {"float16": 2**-11, "bfloat16": 2**-8}.get(
        dtype, 0
    )
    assert send(weights, "int8", tmp_path=tmp_path, spec=Spec.of(weights))["w"][1:].max() == 0


def test_stochastic_int8_of_the_same_arrays_has_the_same_bytes_in_any_blocks(tmp_path):
    weights = {"w": np.random.default_rng(1).normal(size=3 * BLOCK // 2)}
    [first, again] = (narrowings(weights, "int8_stochastic")[0]["w"] for _ in range(2))
    whole = [
        narrowing(block, at * BLOCK)
        for narrowing in (first, again)
        for at, block in enumerate(blocks(weights["w"]))
    ]
    assert [part.tobytes() for part in whole[:2]] == [part.tobytes() for part in whole[2:]]
    other = narrowings({"v": weights["w"]}, "int8_stochastic")[0]["v"]
    assert other(weights["w"][:BLOCK]).tobytes() != whole[0].tobytes()
    back = np.concatenate(whole[:2]).astype(np.float64) * float(first.scale)
    assert np.abs(back - weights["w"]).max() < float(first.scale) * (1 + 1e-6)


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
            expected[name] = nearest(array.astype(np.float64), kind).astype(array.dtype)
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
        # Beside it: half a last place of the product in float32, and of the array's own dtype where that is narrower;
        # and below the normal numbers of float32, where the scale itself is rounded, 127 of its smallest.
        float32_place = np.spacing(np.abs(back).astype(np.float32)).astype(np.float64)
        place = np.abs(np.spacing(found[name])).astype(np.float64)
        rounding = float32_place / 2 + (place / 2 if array.itemsize < 4 else 0)
        tiny = 128 * float(FLOAT32.smallest_subnormal) if scale < float(FLOAT32.tiny) else 0
        # The scale is rounded to float32 as well, which moves what lies between two multiples of it.
        assert (np.abs(back - sent) <= scale * (1 + 2**-23) / 2 + rounding + tiny).all()


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
