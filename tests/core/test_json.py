import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fma_core.arrays.codecs.json_bytes import MAX_DEPTH, dumps, loads
from fma_core.arrays.codecs.json_layouts import arrays_of, json_of
from fma_core.arrays.dtypes import FLOATS, NUMPY_DTYPES
from fma_core.arrays.spec import Spec
from fma_core.errors import MalformedJson, NonFiniteValue, ValueOutOfRange
from tests.core.weights import array_of, arrays, facts_of


def same(found, weights):
    # An empty array in the middle of a shape, (2, 0, 3), is [[], []] in JSON: its last sides cannot be written.
    full = {name: array for name, array in weights.items() if array.size}
    return facts_of({name: found[name] for name in full}) == facts_of(full)


@given(arrays())
def test_named_arrays_survive_the_round_trip_exactly(weights):
    text = dumps(weights, "named")
    found, layout = arrays_of(loads(text), spec=Spec.of(weights))
    assert layout == "named"
    assert same(found, weights)


@given(arrays())
def test_the_standard_library_writes_and_reads_the_same(weights):
    value = json_of(weights, "named")
    assert orjson.loads(dumps(weights, "named")) == json.loads(dumps(weights, "named")) == value
    found, _ = arrays_of(json.loads(json.dumps(value)), layout="named", spec=Spec.of(weights))
    assert same(found, weights)


@given(st.data())
def test_layers_survive_the_round_trip_exactly(data):
    shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
    drawn = data.draw(
        st.lists(shapes.flatmap(lambda shape: array_of("float64", shape)), min_size=1, max_size=12)
    )
    weights = {str(i): array for i, array in enumerate(drawn)}
    found, layout = arrays_of(loads(dumps(weights, "layers")), layout="layers")
    assert layout == "layers"
    assert facts_of(found) == facts_of(weights)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple).flatmap(lambda s: array_of("float64", s))
)
def test_one_array_survives_the_round_trip_exactly(array):
    found, layout = arrays_of(loads(dumps({"array": array}, "array")))
    assert layout == "array"
    assert found["array"].tobytes() == array.tobytes()
    assert not array.size or found["array"].shape == array.shape


@pytest.mark.parametrize("dtype", sorted(FLOATS - {"float64", "float32"}))
def test_every_value_of_the_small_floats_survives(dtype):
    with np.errstate(invalid="ignore"):
        values = np.arange(2**16, dtype=np.uint16).view(NUMPY_DTYPES[dtype])
        values = values[np.isfinite(values)]
    found, _ = arrays_of(loads(dumps({"array": values}, "array")), spec=Spec.of({"array": values}))
    assert found["array"].tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("value", "layout", "shapes"),
    [
        ([1, 2, 3], "array", {"array": (3,)}),
        ([[1, 2], [3, 4.5]], "array", {"array": (2, 2)}),
        ([[[1, 2], [3, 4]], [1, 2]], "layers", {"0": (2, 2), "1": (2,)}),
        ([[1, 2], [1, 2, 3]], "layers", {"0": (2,), "1": (3,)}),
        ([[1], [[[2]]]], "layers", {"0": (1,), "1": (1, 1, 1)}),
        ({"w": [[1]], "b": 2}, "named", {"w": (1, 1), "b": ()}),
        ([], "array", {"array": (0,)}),
        ([[], []], "array", {"array": (2, 0)}),
        ([[], [1]], "layers", {"0": (0,), "1": (1,)}),
    ],
)
def test_layouts_are_recognised(value, layout, shapes):
    found, recognised = arrays_of(value)
    assert recognised == layout
    assert {name: array.shape for name, array in found.items()} == shapes
    assert all(array.dtype == np.float64 for array in found.values())


def test_a_layout_that_is_given_is_obeyed():
    assert list(arrays_of([[1, 2], [3, 4]], layout="layers")[0]) == ["0", "1"]
    assert arrays_of([1, [2]], layout="layers")[0]["0"].shape == ()
    assert arrays_of(1.5, layout="array")[0]["array"].shape == ()
    assert json_of({"0": np.float64(1), "1": np.ones(1)}, "layers") == [1.0, [1.0]]
    assert list(json_of({str(i): np.ones(1) * i for i in reversed(range(12))}, "layers")) == [
        [i] for i in range(12)
    ]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("weights", "data"), (None, "data"), (3, "data"), (True, "data"), ({}, "data"),
        ([1, "2"], "data[1]"), ([[1], [None]], "data[1][0]"), ([1, [2]], "data[1]"), ([[1], 2], "data[1]"),
        ([[1, 2], [3, [4]]], "data[1][1]"), ([[1, True]], "data[0][1]"), ([{"w": 1}], "data[0]"),
        ({"w": {"v": [1]}}, "data['w']"), ({"w": [1], "b": [[1], [1, 2]]}, "data['b'][1]"), ({"w": None}, "data['w']"),
        ([[[1], [2, 3]], [1]], "data[0][1]"),
    ],
)  # fmt: skip
def test_what_is_no_weights_is_refused_with_its_place(value, place):
    with pytest.raises(MalformedJson) as raised:
        arrays_of(value)
    assert raised.value.facts["place"] == place
    assert place in raised.value.message


def test_layouts_that_do_not_fit_are_refused():
    for value, layout in (
        ([1], "named"),
        ({"w": [1]}, "layers"),
        ({"w": [1]}, "array"),
        ([], "layers"),
        (1, "layers"),
    ):
        with pytest.raises(MalformedJson):
            arrays_of(value, layout=layout)
    with pytest.raises(ValueError, match="layout 'layers'"):
        json_of({"w": np.ones(1)}, "layers")


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}"), ('[1,{"a":', "},[]]")])
def test_json_may_be_nested_so_deep_and_no_deeper(opened, closed):
    levels = MAX_DEPTH // (opened.count("[") + opened.count("{"))
    innermost = "1" if opened.endswith(":") else ""
    wide = f"[{','.join(['[[1],[2]]'] * MAX_DEPTH)}]"

    assert loads(f"{opened * levels}{innermost}{closed * levels}".encode())
    assert loads(memoryview(wide.encode()))
    with pytest.raises(MalformedJson, match=f"nested {MAX_DEPTH} levels"):
        loads(f"{opened * (levels + 1)}{innermost}{closed * (levels + 1)}".encode())


@pytest.mark.parametrize("depth", [33, 100, 2000])
def test_endless_nesting_is_refused(depth):
    value: object = 1.0
    for _ in range(depth):
        value = [value]
    with pytest.raises(MalformedJson, match="deep"):
        arrays_of(value)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float64", 2**53 + 1), ("float64", -(2**63) + 1), ("float64", 10**400), ("float32", 1e39), ("float16", 65520),
        ("bfloat16", 3.4e38), ("int8", 128), ("int8", 1.5), ("uint8", -1), ("uint8", 300), ("int64", 2**63),
        ("int64", 1e300), ("uint64", 2**64), ("bool", 2), ("bool", 0.5),
    ],
)  # fmt: skip
def test_values_that_the_dtype_cannot_hold_are_refused(dtype, value):
    spec = Spec.of({"w": np.zeros(2, NUMPY_DTYPES[dtype])})
    with pytest.raises(ValueOutOfRange) as raised:
        arrays_of({"w": [0, value]}, spec=spec)
    assert raised.value.facts["place"] == "data['w'][1]"
    assert len(raised.value.message) < 200


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float64", 2**53), ("float64", 2**60), ("float64", -(2**63)), ("float32", 0.1), ("float16", 65504),
        ("int8", -128),         ("int8", 2.0),
        ("int64", 2**63 - 1), ("uint64", 2**64 - 1), ("bool", True), ("bool", 1), ("bool", 0.0),
    ],
)  # fmt: skip
def test_values_at_the_edge_are_read(dtype, value):
    spec = Spec.of({"w": np.zeros(2, NUMPY_DTYPES[dtype])})
    found, _ = arrays_of({"w": [0, value]}, spec=spec)
    assert found["w"].dtype == NUMPY_DTYPES[dtype]
    assert found["w"][1] == NUMPY_DTYPES[dtype].type(value)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_numbers_are_refused(dtype, value):
    with pytest.raises(NonFiniteValue, match="data"):
        arrays_of([0.0, value], spec=Spec.of({"array": np.zeros(2, NUMPY_DTYPES[dtype])}))


def test_booleans_are_for_boolean_arrays_only():
    spec = Spec.of({"w": np.zeros(2, np.int8)})
    with pytest.raises(MalformedJson, match="a boolean at data\\['w'\\]\\[0\\]"):
        arrays_of({"w": [True, False]}, spec=spec)


@pytest.mark.parametrize(
    "text", [b"", b"[1, 2", b"[NaN]", b"[Infinity]", b"[-Infinity]", b"\xff", b"[" * 100_000, b"[1,]"]
)
def test_text_that_is_no_json_is_refused(text):
    with pytest.raises(MalformedJson, match="not valid JSON"):
        loads(text)


@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_a_non_finite_value_is_never_written_as_null(dtype):
    array = np.array([1, np.nan], NUMPY_DTYPES[dtype])
    with pytest.raises(NonFiniteValue, match="'w'"):
        dumps({"w": array}, "named")
    with pytest.raises(NonFiniteValue):
        json_of({"w": array}, "named")


def test_memory_layout_and_byte_order_do_not_matter():
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    for other in (np.asfortranarray(array), array.astype(">i4"), np.repeat(array, 2, axis=1)[:, ::2]):
        assert dumps({"array": other}, "array") == dumps({"array": array}, "array")
