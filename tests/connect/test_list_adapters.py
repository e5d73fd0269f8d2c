from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fma_connect.adapters import array_list, nested_lists

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.lists(FINITE, min_size=1, max_size=4)
VALUES = st.one_of(
    NUMBERS,
    st.lists(st.lists(FINITE, min_size=2, max_size=2), min_size=1, max_size=3),
    st.lists(NUMBERS, min_size=2, max_size=4),
    st.dictionaries(st.text(min_size=1, max_size=5), NUMBERS, min_size=1, max_size=4),
)
ARRAYS = hnp.arrays(
    dtype=st.sampled_from(["float16", "float32", ">f4", "float64", "int64", ">i2", "uint8", "bool"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
)


@given(value=VALUES)
def test_nested_lists_come_back_exactly(value: Any) -> None:
    assert nested_lists.from_arrays(nested_lists.to_arrays(value), like=value) == value


def test_layouts_are_those_of_the_server() -> None:
    assert list(nested_lists.to_arrays([[1, 2], [3, 4]])) == ["array"]
    assert list(nested_lists.to_arrays([[1, 2], [3]])) == ["0", "1"]
    assert list(nested_lists.to_arrays({"w": [1]})) == ["w"]
    assert nested_lists.from_arrays({"0": np.ones(1), "1": np.ones(2)}, layout="layers") == [
        [1.0],
        [1.0, 1.0],
    ]
    assert nested_lists.from_arrays(nested_lists.to_arrays([[1], [2]], layout="layers"), layout="layers") == [
        [1],
        [2],
    ]


def test_layout_is_said_once() -> None:
    with pytest.raises(ValueError, match="either like= or layout="):
        nested_lists.from_arrays({"array": np.ones(1)})
    with pytest.raises(ValueError, match="either like= or layout="):
        nested_lists.from_arrays({"array": np.ones(1)}, like=[1], layout="array")


@given(weights=st.lists(ARRAYS, min_size=1, max_size=12))
def test_list_of_arrays_comes_back_exactly(weights: list[np.ndarray]) -> None:
    arrays = array_list.to_arrays(weights)
    back = array_list.from_arrays(dict(reversed(arrays.items())), like=weights)

    assert len(back) == len(weights)
    for returned, given_ in zip(back, weights, strict=True):
        assert returned.dtype == given_.dtype.newbyteorder("=")
        assert returned.shape == given_.shape
        assert np.array_equal(returned, given_, equal_nan=given_.dtype.kind == "f")
        assert returned.flags.writeable
        assert not np.shares_memory(returned, given_)


def test_list_of_another_model_is_told() -> None:
    arrays = array_list.to_arrays([np.ones(2), np.ones((2, 3))])

    with pytest.raises(ValueError, match="array '2' is missing; a list of 3 arrays has it"):
        array_list.from_arrays(arrays, like=[np.ones(2)] * 3)
    with pytest.raises(ValueError, match="array '1' is unknown to a list of 1 arrays"):
        array_list.from_arrays(arrays, like=[np.ones(2)])
    with pytest.raises(ValueError, match=r"array '1' has shape \(2, 3\); the list has \(3, 2\)"):
        array_list.from_arrays(arrays, like=[np.ones(2), np.ones((3, 2))])
    with pytest.raises(ValueError, match="array '0' is missing"):
        array_list.from_arrays({"w": np.ones(1)})


def test_list_needs_no_example() -> None:
    back = array_list.from_arrays({"1": np.zeros(2), "0": np.ones(1)})

    assert [array.tolist() for array in back] == [[1.0], [0.0, 0.0]]


def test_what_keras_does_not_train_is_averaged() -> None:
    weights = [SimpleNamespace(trainable=trainable) for trainable in (True, True, False, False)]
    assert array_list.array_policies(weights) == {"2": "averaged", "3": "averaged"}
