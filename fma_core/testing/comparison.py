"""Comparison of results: their largest difference, and equality of all bits."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fma_core.arrays.spec import Arrays
from fma_core.testing.drawn_updates import is_float


def plain_attributes(part: object) -> dict[str, Any]:
    cached = {
        name for name in dir(type(part)) if isinstance(getattr(type(part), name), functools.cached_property)
    }
    return {name: repr(value) for name, value in vars(part).items() if name not in cached}


def same_bits(models: Sequence[Arrays], expected: Sequence[Arrays]) -> bool:
    return [bits_of(model) for model in models] == [bits_of(model) for model in expected]


def bits_of(model: Arrays) -> Mapping[str, bytes]:
    return {name: array.tobytes() for name, array in model.items()}


def difference_between(result: Arrays, expected: Arrays) -> float:
    """The largest difference, in units of the largest value; integers must be equal."""
    largest = max((np.abs(a).max() for a in expected.values() if is_float(a) and a.size), default=0.0)
    worst = 0.0
    for name, array in expected.items():
        if is_float(array) and array.size:
            worst = max(worst, float(np.abs(result[name] - array).max()) / (float(largest) or 1.0))
        elif not np.array_equal(result[name], array):
            return float("inf")
    return worst
