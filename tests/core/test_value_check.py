"""A look at every value, however the bytes are cut."""

from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest

from fma_core import encode
from fma_core.arrays.codecs.header import canonical_form
from fma_core.arrays.codecs.value_check import ValueCheck
from fma_core.arrays.spec import Spec
from fma_core.errors import NonFiniteValue, ValueOutOfRange

ARRAYS = {
    "a": np.arange(7, dtype=np.float64),
    "b": np.ones(3, np.float32),
    "c": np.zeros((0, 4), np.float32),
    "d": np.array([True, False, True]),
    "e": np.ones(5, ml_dtypes.bfloat16),
    "f": np.arange(3, dtype=np.int64),
}
FORM = canonical_form(Spec.of(ARRAYS))
DATA = encode(ARRAYS)[len(FORM.header) :]


def look(data: bytes, cuts: list[int]) -> None:
    check = ValueCheck(FORM)
    for start, stop in pairwise([0, *cuts, len(data)]):
        check(data[start:stop])


def damaged(array: str, index: int) -> bytes:
    """One value of the data is all ones: a NaN, or a boolean of 255."""
    entry = next(entry for entry in FORM.entries if entry.array.name == array)
    size = (entry.stop - entry.start) // entry.array.num_parameters
    at = entry.start + index * size
    return DATA[:at] + b"\xff" * size + DATA[at + size :]


CUTS = [
    [],
    list(range(1, len(DATA))),
    *[sorted(np.random.default_rng(seed).integers(0, len(DATA), 9).tolist()) for seed in range(20)],
]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_good_values_are_good_however_they_are_cut(cuts: list[int]) -> None:
    look(DATA, cuts)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize(("array", "index"), [("a", 0), ("a", 6), ("b", 1), ("d", 2), ("e", 4)])
def test_a_bad_value_is_found_however_it_is_cut(array: str, index: int, cuts: list[int]) -> None:
    with pytest.raises((NonFiniteValue, ValueOutOfRange)) as refused:
        look(damaged(array, index), cuts)

    assert (refused.value.facts["array"], refused.value.facts["index"]) == (array, index)
