"""Nested lists of numbers: the JSON layouts of FMA's own clients (see fma_core.arrays.codecs.json_layouts)."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from fma_connect.exceptions import InvalidArgument
from fma_connect.pulled import Arrays
from fma_core.arrays.codecs.json_layouts import Layout, arrays_of, json_of

__all__ = ["from_arrays", "to_arrays"]


def to_arrays(value: Any, *, layout: Layout | None = None) -> dict[str, npt.NDArray[Any]]:
    """The float64 arrays of nested lists, or of an object of nested lists.

    layout: the layout of `value`; without it a rectangular list is one array, and a ragged one is a list of layers.
    """
    arrays, _ = arrays_of(value, layout=layout)
    return arrays


def from_arrays(arrays: Arrays, *, like: Any = None, layout: Layout | None = None) -> Any:
    """The nested lists of these arrays, in the given layout or in the layout of `like`."""
    if (like is None) == (layout is None):
        raise InvalidArgument("give either like= or layout=")
    if layout is None:
        _, layout = arrays_of(like)
    return json_of(arrays, layout)
