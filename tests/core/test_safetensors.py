import io
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from fma_core.arrays.codecs import header as header_module
from fma_core.arrays.codecs.safetensors import (
    Limits,
    canonical_header,
    decode,
    encode,
    read_file,
    read_header,
)
from fma_core.arrays.dtypes import FLOATS, NUMPY_DTYPES
from fma_core.arrays.spec import Spec
from fma_core.errors import (
    InvalidSpec,
    InvalidWeights,
    MalformedSafetensors,
    NonFiniteValue,
    TooLarge,
    TruncatedBody,
    ValueOutOfRange,
)
from tests.core.weights import arrays, by_the_library, facts_of, lay_out


@given(arrays())
def test_the_library_reads_what_we_encode(weights):
    assert by_the_library(encode(weights)) == facts_of(weights)


@given(arrays(dtypes=[name for name in NUMPY_DTYPES if name != "bfloat16"]))
def test_we_read_what_the_library_encodes(weights):
    assert facts_of(decode(safetensors.numpy.save(weights, metadata={"format": "np"}))) == facts_of(weights)


@given(arrays(), st.randoms())
def test_decode_reads_any_order_of_the_data(weights, random):
    order = random.sample(sorted(weights), len(weights))
    found = decode(memoryview(lay_out(weights, order)))
    assert facts_of(found) == facts_of(weights)
    assert list(found) == sorted(weights)


@given(arrays())
def test_encoding_is_canonical(weights):
    body = encode(weights)
    assert body == encode(dict(reversed(weights.items()))) == encode(decode(body))
    assert len(canonical_header(Spec.of(weights))) % 8 == 0
    assert body.startswith(canonical_header(Spec.of(weights)))


def test_memory_layout_and_byte_order_do_not_matter():
    plain = np.arange(24, dtype="<f4").reshape(4, 6)
    for other in (
        np.asfortranarray(plain),
        plain.astype(">f4"),
        np.arange(48, dtype="<f4")[::2].reshape(4, 6),
    ):
        other = other if np.array_equal(other, plain) else other / 2
        assert encode({"w": other.astype(other.dtype)}) == encode({"w": plain})


def test_decoded_arrays_are_writable_copies():
    body = bytearray(encode({"w": np.ones(3), "s": np.float32(2)}))
    found = decode(body)
    body[-1] = 0
    found["w"] += 1
    found["s"][...] = 3
    assert found["w"].tolist() == [2, 2, 2]


def test_read_file(tmp_path):
    weights = {
        "w": np.arange(700_000, dtype=np.float32),
        "e": np.zeros((0, 2)),
        "h": np.ones(3, ml_dtypes.bfloat16),
    }
    path = tmp_path / "weights.safetensors"
    path.write_bytes(encode(weights))
    assert facts_of(read_file(path)) == facts_of(weights)
    path.write_bytes(encode(weights)[:-1])
    with pytest.raises(MalformedSafetensors, match="bytes of data follow"):
        read_file(path)


def test_encode_refuses_what_are_no_weights():
    with pytest.raises(InvalidSpec, match="complex128"):
        encode({"w": np.zeros(1, complex)})
    with pytest.raises(InvalidSpec, match="at least one"):
        encode({})


@pytest.mark.parametrize("dtype", sorted(FLOATS))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 5, 11])
def test_non_finite_values_are_refused_both_ways(dtype, bad, position):
    array = np.ones((3, 4), NUMPY_DTYPES[dtype])
    array.reshape(-1)[position] = bad
    with pytest.raises(NonFiniteValue) as raised:
        encode({"w": array})
    assert raised.value.facts == {"array": "w", "index": position}
    with pytest.raises(NonFiniteValue, match=f"value {position} "):
        decode(lay_out({"w": array}, ["w"]))


def test_a_boolean_byte_of_two_is_refused():
    body = lay_out({"w": np.ones(4, bool)}, ["w"])
    with pytest.raises(ValueOutOfRange, match="value 3 "):
        decode(body[:-1] + b"\x02")


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def body_of(text: str | bytes, data: bytes = b"") -> bytes:
    text = text if isinstance(text, bytes) else text.encode()
    return len(text).to_bytes(8, "little") + text + data


MALFORMED = {
    "empty": b"",
    "short length": b"\x01\x00",
    "no header": body_of(""),
    "huge length": b"\xff" * 8 + b"{}",
    "negative length": (2**64 - 10).to_bytes(8, "little") + b"{}",
    "length one too long": (3).to_bytes(8, "little") + b"{}",
    "not an object": body_of("[]"),
    "a blank first": body_of(" {}"),
    "not JSON": body_of("{"),
    "not UTF-8": body_of(b'{"\xff": 1}'),
    "no arrays": body_of("{}"),
    "only metadata": body_of('{"__metadata__": {}}'),
    "metadata of numbers": body_of('{"__metadata__": {"a": 1}}'),
    "metadata no object": body_of('{"__metadata__": "a"}'),
    "deep nesting": body_of("{" + '"a":[' * 10 + "[" * 200_000),
    "deep objects": body_of('{"a":' * 100_000),
    "no parameters": body_of(json.dumps({"w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})),
    "duplicate name": body_of('{"w": %s, "w": %s}' % ((json.dumps(F32),) * 2), bytes(8)),
    "duplicate key": body_of('{"w": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', bytes(8)),
    "entry no object": body_of('{"w": 3}'),
    "key missing": body_of('{"w": {"dtype": "F32", "shape": [2]}}', bytes(8)),
    "key too many": body_of(json.dumps({"w": {**F32, "more": 1}}), bytes(8)),
    "name empty": body_of(json.dumps({"": F32}), bytes(8)),
    "name control": body_of(json.dumps({"a\x00": F32}), bytes(8)),
    "name surrogate": body_of(json.dumps({"\ud800": F32}), bytes(8)),
    "trailing byte": body_of(json.dumps({"w": F32}), bytes(9)),
    "one byte short": body_of(json.dumps({"w": F32}), bytes(7)),
    "gap at the start": body_of(json.dumps({"w": {**F32, "data_offsets": [4, 12]}}), bytes(12)),
    "gap": body_of(json.dumps({"v": F32, "w": {**F32, "data_offsets": [9, 17]}}), bytes(17)),
    "overlap": body_of(json.dumps({"v": F32, "w": {**F32, "data_offsets": [4, 12]}}), bytes(12)),
    "same bytes twice": body_of(json.dumps({"v": F32, "w": F32}), bytes(8)),
}  # fmt: skip


def changed(**fields: object) -> bytes:
    return body_of(json.dumps({"w": {**F32, **fields}}), bytes(8))


MALFORMED |= {
    f"{key} {value!r:.60}": changed(**{key: value})
    for key, values in {
        "dtype": ["F8", "", None, 3, ["F32"], {}, "f32", "C64", "F8_E4M3"],
        "shape": [None, 2, "2", [2.0], [-2], [-1, -2], [True, 2], [3], [], [None], [[2]], [2**63], [2**32, 2**32],
                  [0, 2**70], [1] * 33, [10**4000]],
        "data_offsets": [None, [], [0], [0, 8, 8], [8, 0], [-8, 0], [0, 8.0], ["0", "8"], [False, 8], [0, 4], [0, 16],
                         [2**64, 2**64 + 8], [0, 10**30]],
    }.items()
    for value in values  # type: ignore[attr-defined]
}  # fmt: skip
MALFORMED["integer of ten thousand digits"] = body_of('{"w": ' + "9" * 10_000 + "}")
MALFORMED["NaN"] = body_of('{"w": NaN}')
MALFORMED["float"] = body_of('{"w": 1.5}')


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_bodies_are_refused_with_a_sentence(body):
    with pytest.raises(MalformedSafetensors) as raised:
        decode(body)
    assert raised.value.code == "malformed_safetensors"
    assert 10 < len(raised.value.message) < 700


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_bodies_are_refused_before_their_data_is_read(body):
    header_end = 8 + int.from_bytes(body[:8], "little")
    source = io.BytesIO(body)
    with pytest.raises(MalformedSafetensors):
        read_header(source.read, size_bytes=len(body))
    assert source.tell() <= header_end


@settings(max_examples=300)
@given(arrays(), st.data())
def test_damaged_bodies_are_read_or_refused_but_never_crash(weights, data):
    body = bytearray(encode(weights))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body
    try:
        found = decode(body)
    except InvalidWeights:
        return
    assert facts_of(decode(encode(found))) == facts_of(found)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]),
        st.one_of(
            st.fixed_dictionaries({
                "dtype": st.sampled_from(["F32", "BOOL", "I64", "X"]),
                "shape": st.lists(st.integers(-1, 4), max_size=3),
                "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2),
            }),
            st.none(),
        ),
    ),
    st.integers(0, 60),
)  # fmt: skip
def test_whatever_we_accept_the_library_accepts_too(fields, size):
    body = body_of(json.dumps(fields), bytes(size))
    try:
        found = decode(body)
    except InvalidWeights:
        return
    assert by_the_library(body) == facts_of(found)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_bytes=100), "the body has"),
        (Limits(max_header_bytes=10), "the header has"),
        (Limits(max_arrays=1), "names 2 arrays"),
    ],
)
def test_limits(limits, message):
    with pytest.raises(TooLarge, match=message):
        decode(encode({"a": np.zeros(9), "b": np.zeros(9)}), limits)


def test_a_stream_that_ends_in_the_header_is_truncated():
    body = encode({"w": np.zeros(2)})
    with pytest.raises(TruncatedBody, match="the body ended before its announced end"):
        read_header(io.BytesIO(body[:-17]).read, size_bytes=len(body))


def test_a_stream_is_asked_for_small_pieces_only():
    asked = []
    text = json.dumps({"__metadata__": {"a": "x" * 3_000_000}, "w": F32}).encode()
    source = io.BytesIO(body_of(text, bytes(8)))

    def read(size: int) -> bytes:
        asked.append(size)
        return source.read(size)

    found = read_header(read, size_bytes=len(text) + 16)
    assert max(asked) <= header_module.PIECE_BYTES
    assert found.spec == Spec.of({"w": np.zeros(2, np.float32)})
    assert found.data_start == len(text) + 8
