import ml_dtypes
import numpy as np
import pytest
from hypothesis import given

from fma_core.arrays.dtypes import NUMPY_DTYPES
from fma_core.arrays.spec import ArraySpec, Spec
from fma_core.errors import DtypeMismatch, InvalidSpec, MissingArray, ShapeMismatch, UnexpectedArray
from tests.core.weights import arrays

W = {"dense/w": np.zeros((10, 4), np.float32), "dense/b": np.zeros(4, np.float32)}


@given(arrays())
def test_json_round_trip(weights):
    spec = Spec.of(weights)
    assert Spec.from_json(spec.to_json()) == spec
    assert spec.names == tuple(sorted(weights))
    assert spec.num_parameters == sum(array.size for array in weights.values())
    assert spec.data_size_bytes == sum(array.nbytes for array in weights.values())
    spec.check(weights)
    spec.check(spec)


def test_json_form():
    assert Spec.of(W).to_json() == {
        "dense/b": {"shape": [4], "dtype": "float32"},
        "dense/w": {"shape": [10, 4], "dtype": "float32"},
    }


def test_order_of_arrays_does_not_matter():
    a, b = ArraySpec("a", (1,), "int8"), ArraySpec("b", (), "bfloat16")
    assert Spec((a, b)) == Spec((b, a))
    assert hash(Spec((a, b))) == hash(Spec((b, a)))


def test_big_endian_arrays_have_the_same_spec():
    assert Spec.of({"w": np.zeros(3, ">f4")}) == Spec.of({"w": np.zeros(3, "<f4")})


@pytest.mark.parametrize("name", NUMPY_DTYPES)
def test_every_dtype_is_found_by_its_name(name):
    assert Spec.of({"w": np.zeros(1, NUMPY_DTYPES[name])}).arrays[0].dtype == name


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dense/w": np.zeros((10, 3), np.float32)}, ShapeMismatch,
         "array 'dense/w' has shape (10, 3); the model's spec says (10, 4)"),
        ({"dense/w": np.zeros((10, 4), np.float64)}, DtypeMismatch,
         "array 'dense/w' has dtype float64; the model's spec says float32"),
        ({"extra": np.zeros(1)}, UnexpectedArray, "array 'extra' was sent; it is not among those that the model takes"),
        ({"dense/w": None}, MissingArray, "array 'dense/w' is missing; it must be sent"),
    ],
)  # fmt: skip
def test_check_names_the_difference(change, error, message):
    sent = {name: array for name, array in {**W, **change}.items() if array is not None}
    with pytest.raises(error) as raised:
        Spec.of(W).check(sent)
    assert raised.value.message == message
    assert raised.value.facts["array"] == next(iter(change))


def test_check_names_the_first_difference_in_the_order_of_names():
    with pytest.raises(UnexpectedArray, match="'a'"):
        Spec.of(W).check({"a": np.zeros(1), "z": np.zeros(1)})


def test_no_arrays_at_all_are_missing_arrays():
    with pytest.raises(MissingArray, match="'dense/b'"):
        Spec.of(W).check({})


def test_a_shape_of_a_number_too_long_to_print_is_refused():
    with pytest.raises(InvalidSpec, match="thousands of digits"):
        ArraySpec("w", (10**5000,), "float32")


@pytest.mark.parametrize("name", ["", "a\x00b", "a\nb", "\ud800", "x" * 1025, "__metadata__", 7, None])
def test_names_that_nothing_can_store_are_refused(name):
    with pytest.raises(InvalidSpec, match="name"):
        ArraySpec(name, (1,), "float32")


@pytest.mark.parametrize(
    "shape", [(-1,), (1.0,), (True,), ("1",), [1], (1,) * 33, (2**31, 2**31), (0, 2**62, 2**62)]
)
def test_shapes_that_no_array_has_are_refused(shape):
    with pytest.raises(InvalidSpec, match="'w'"):
        ArraySpec("w", shape, "float32")


@pytest.mark.parametrize("dtype", ["complex64", "float128", "object", "", None, ["float32"], np.float32])
def test_dtypes_that_weights_cannot_have_are_refused(dtype):
    with pytest.raises(InvalidSpec, match="float32"):
        ArraySpec("w", (1,), dtype)


@pytest.mark.parametrize("array", [np.zeros(1, complex), np.array(["a"]), np.array([{}]), [1.0], None])
def test_arrays_that_are_no_weights_are_refused(array):
    with pytest.raises(InvalidSpec, match="'w'"):
        Spec.of({"w": array})


@pytest.mark.parametrize("weights", [{}, {"w": np.zeros((0, 3))}])
def test_a_model_without_parameters_is_refused(weights):
    with pytest.raises(InvalidSpec, match="at least one"):
        Spec.of(weights)


def test_a_name_given_twice_is_refused():
    with pytest.raises(InvalidSpec, match="twice"):
        Spec((ArraySpec("w", (1,), "float32"), ArraySpec("w", (2,), "float32")))


@pytest.mark.parametrize(
    "obj",
    [None, [], "w", {1: {"shape": [], "dtype": "float32"}}, {"w": {}}, {"w": None},
     {"w": {"shape": 3, "dtype": "int8"}}, {"w": {"shape": [1], "dtype": "float32", "more": 1}}],
)  # fmt: skip
def test_json_that_is_no_spec_is_refused(obj):
    with pytest.raises(InvalidSpec):
        Spec.from_json(obj)


def test_numpy_scalars_and_bfloat16_are_arrays_too():
    spec = Spec.of({"a": np.float32(1), "b": np.zeros((), ml_dtypes.bfloat16)})
    assert spec.to_json()["b"] == {"shape": [], "dtype": "bfloat16"}
    assert spec.arrays[0].numpy_dtype == np.float32
