"""Lists of arrays, as Keras' `model.get_weights()` gives and `model.set_weights()` takes.

The arrays are named by position, "0", "1", ..., as the server names the layers of a JSON update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from fma_connect.adapters.matching import native_copy, refuse_other_names, refuse_other_shape
from fma_connect.pulled import Arrays
from fma_core.arrays.policies import Policy

__all__ = ["array_policies", "from_arrays", "to_arrays"]


def to_arrays(weights: Sequence[npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a list, named by position."""
    return {str(position): native_copy(array) for position, array in enumerate(weights)}


def array_policies(variables: Sequence[Any]) -> dict[str, Policy]:
    """The policies of Keras' `model.weights`, which are in the order of `get_weights()`: not trained is averaged.

    Positions tell the server nothing, so a model with normalisation layers needs these policies.
    """
    return {
        str(position): "averaged" for position, variable in enumerate(variables) if not variable.trainable
    }


def from_arrays(arrays: Arrays, *, like: Sequence[npt.NDArray[Any]] | None = None) -> list[npt.NDArray[Any]]:
    """The list of these arrays; their number and shapes are checked against `like`, a list of the same model."""
    number = len(arrays) if like is None else len(like)
    refuse_other_names(arrays, {str(position) for position in range(number)}, of=f"a list of {number} arrays")
    if like is not None:
        for position, expected in enumerate(like):
            name = str(position)
            refuse_other_shape(name, arrays[name].shape, expected.shape, of="the list")
    return [native_copy(arrays[str(position)]) for position in range(number)]
