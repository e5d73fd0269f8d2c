"""Checks that arrays have the names and shapes that an object needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fma_connect.exceptions import InvalidArgument

__all__ = ["native_copy", "refuse_other_names", "refuse_other_shape"]


def refuse_other_names(arrays: Mapping[str, Any], expected: Mapping[str, Any] | set[str], *, of: str) -> None:
    """Raise InvalidArgument for the first name that is missing or unknown."""
    for name in sorted(set(expected) - set(arrays)):
        raise InvalidArgument(f"array {name!r} is missing; {of} has it")
    for name in sorted(set(arrays) - set(expected)):
        raise InvalidArgument(f"array {name!r} is unknown to {of}")


def refuse_other_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...], *, of: str) -> None:
    """Raise InvalidArgument unless the shapes are the same."""
    if shape != expected:
        raise InvalidArgument(f"array {name!r} has shape {shape}; {of} has {expected}")


def native_copy(array: npt.ArrayLike) -> npt.NDArray[Any]:
    """A writable, C-contiguous copy in this machine's byte order."""
    given = np.asarray(array)
    return np.array(given, dtype=given.dtype.newbyteorder("="), order="C", copy=True)
