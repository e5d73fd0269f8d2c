"""The spec of a model: the name, shape and dtype of each array."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fma_core.arrays import dtypes
from fma_core.errors import DtypeMismatch, InvalidSpec, MissingArray, ShapeMismatch, UnexpectedArray

Arrays = Mapping[str, NDArray[Any]]

MAX_NAME_LENGTH = 1024
MAX_DIMENSIONS = 32  # numpy 1's limit; numpy 2 has 64
# The largest offset in a header; the limits of a body are much lower (codecs.limits).
MAX_ARRAY_BYTES = 2**62
MAX_EMPTY_LISTS = 64

# Names go into headers, JSON columns and log lines: PostgreSQL refuses U+0000, UTF-8 refuses lone surrogates.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """The name, shape and dtype of one array. Raises InvalidSpec when no array can have them."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    # Computed once: a model may have a hundred thousand arrays, and every loop over them needs it.
    num_parameters: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_name(self.name)
        if type(self.shape) is not tuple or not all(
            type(side) is int and 0 <= side <= MAX_ARRAY_BYTES for side in self.shape
        ):
            # The shape is shortened: an integer of ten thousand digits must not fill the message.
            raise InvalidSpec(
                f"array {self.name!r} must have a shape of integers from 0 to 2**62, found {_short(self.shape)}",
                array=self.name,
            )
        if len(self.shape) > MAX_DIMENSIONS:
            raise InvalidSpec(
                f"array {self.name!r} has {len(self.shape)} dimensions; at most {MAX_DIMENSIONS} are possible",
                array=self.name,
            )
        if not isinstance(self.dtype, str) or self.dtype not in dtypes.NUMPY_DTYPES:
            raise InvalidSpec(
                f"array {self.name!r} has dtype {self.dtype!r}; weights can be {', '.join(dtypes.NUMPY_DTYPES)}",
                array=self.name,
            )
        # Sides of 0 are left out: numpy cannot make an array of shape (0, 2**62, 2**62) either.
        size_bytes = dtypes.ITEM_SIZES[self.dtype]
        for side in self.shape:
            size_bytes *= side or 1
            if size_bytes > MAX_ARRAY_BYTES:
                raise InvalidSpec(
                    f"array {self.name!r} of shape {self.shape} and dtype {self.dtype} is larger than "
                    f"{MAX_ARRAY_BYTES} bytes",
                    array=self.name,
                )
        # No limit of bytes holds for an array without any, and as nested lists (2**40, 0) would be 2**40 of them.
        num_lists = math.prod(side or 1 for side in self.shape)
        if 0 in self.shape and num_lists > MAX_EMPTY_LISTS:
            raise InvalidSpec(
                f"array {self.name!r} of shape {self.shape} is empty; the product of an empty array's other sides may "
                f"be {MAX_EMPTY_LISTS} at most",
                array=self.name,
            )
        object.__setattr__(self, "num_parameters", math.prod(self.shape))

    @property
    def size_bytes(self) -> int:
        return self.num_parameters * dtypes.ITEM_SIZES[self.dtype]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return dtypes.NUMPY_DTYPES[self.dtype]


@dataclass(frozen=True)
class Spec:
    """The arrays of a model, sorted by name: at least one array, and one parameter in all; names are unique.

    >>> spec = Spec.of({"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)})
    >>> spec.to_json()
    {'b': {'shape': [3], 'dtype': 'float32'}, 'w': {'shape': [2, 3], 'dtype': 'float32'}}
    >>> spec.num_parameters, Spec.from_json(spec.to_json()) == spec
    (9, True)
    """

    arrays: tuple[ArraySpec, ...]

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.arrays, key=lambda array: array.name))
        object.__setattr__(self, "arrays", ordered)
        for previous, array in pairwise(ordered):
            if previous.name == array.name:
                raise InvalidSpec(
                    f"array {array.name!r} is named twice; names must be unique", array=array.name
                )
        if self.num_parameters == 0:
            raise InvalidSpec("a model must have at least one array and one parameter; this one has none")

    def __hash__(self) -> int:
        # Computed once: caches use specs as keys, and are read for every body.
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        # Without the hash: another process hashes strings differently.
        return {"arrays": self.arrays}

    @classmethod
    def of(cls, arrays: Arrays) -> Spec:
        """The spec of arrays in memory."""
        return cls(tuple(_array_spec_of(name, array) for name, array in arrays.items()))

    @classmethod
    def from_json(cls, obj: object) -> Spec:
        """Read the JSON of `to_json`: {"w1": {"shape": [64, 64], "dtype": "float32"}, …}."""
        if not isinstance(obj, dict):
            raise InvalidSpec(f"a spec must be an object of arrays by name, found {type(obj).__name__}")
        return cls(tuple(_array_spec_from_json(name, entry) for name, entry in obj.items()))

    def to_json(self) -> dict[str, Any]:
        return {array.name: {"shape": list(array.shape), "dtype": array.dtype} for array in self.arrays}

    def check(self, other: Spec | Arrays) -> None:
        """Raise SpecMismatch for the first array, by name, that differs from this spec."""
        if isinstance(other, Spec):
            if self.arrays == other.arrays:
                return
            sent = other.by_name
        else:
            if len(other) == len(self.arrays) and all(_fits(other.get(a.name), a) for a in self.arrays):
                return
            sent = _specs_by_name(other)
        for name in sorted({*self.by_name, *sent}):
            _check_array(name, expected=self.by_name.get(name), sent=sent.get(name))

    @cached_property
    def by_name(self) -> Mapping[str, ArraySpec]:
        return {array.name: array for array in self.arrays}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(array.name for array in self.arrays)

    @cached_property
    def num_parameters(self) -> int:
        return sum(array.num_parameters for array in self.arrays)

    @cached_property
    def _hash(self) -> int:
        return hash(self.arrays)

    @cached_property
    def data_size_bytes(self) -> int:
        return sum(array.size_bytes for array in self.arrays)


def _short(value: object) -> str:
    try:
        text = str(value)
    except ValueError:  # Python refuses to print an integer of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}…"


def _array_spec_of(name: str, array: NDArray[Any]) -> ArraySpec:
    if not isinstance(array, (np.ndarray, np.generic)):
        raise InvalidSpec(f"array {name!r} must be a numpy array, found {type(array).__name__}", array=name)
    return ArraySpec(name, tuple(int(side) for side in array.shape), dtypes.name_of(array.dtype, array=name))


def _fits(array: NDArray[Any] | None, spec: ArraySpec) -> bool:
    # In native byte order only: others are compared by name, which costs ten times as much.
    return isinstance(array, np.ndarray) and array.shape == spec.shape and array.dtype == spec.numpy_dtype


def _specs_by_name(arrays: Arrays) -> dict[str, ArraySpec]:
    # Not Spec.of: no arrays at all must be a difference (the first one is missing), not an invalid spec.
    return {name: _array_spec_of(name, array) for name, array in arrays.items()}


def _array_spec_from_json(name: object, entry: object) -> ArraySpec:
    if not isinstance(name, str) or not isinstance(entry, dict) or entry.keys() != {"shape", "dtype"}:
        raise InvalidSpec(f"array {name!r} must be given as {{'shape': [...], 'dtype': '...'}}", array=name)
    shape = entry["shape"]
    if not isinstance(shape, (list, tuple)):
        raise InvalidSpec(f"array {name!r} must have a list as its shape, found {_short(shape)}", array=name)
    return ArraySpec(name, tuple(shape), entry["dtype"])


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH or _UNPRINTABLE.search(name):
        raise InvalidSpec(
            f"an array's name must have 1 to {MAX_NAME_LENGTH} characters and no control characters, "
            f"found {str(name)[:80]!r}"
        )
    if name == "__metadata__":
        raise InvalidSpec(
            "an array cannot be named '__metadata__': safetensors reserves the name", array=name
        )


def _check_array(name: str, *, expected: ArraySpec | None, sent: ArraySpec | None) -> None:
    if sent is None:
        raise MissingArray(f"array {name!r} is missing; it must be sent", array=name)
    if expected is None:
        raise UnexpectedArray(
            f"array {name!r} was sent; it is not among those that the model takes", array=name
        )
    if sent.shape != expected.shape:
        raise ShapeMismatch(
            f"array {name!r} has shape {sent.shape}; the model's spec says {expected.shape}",
            array=name,
            found=list(sent.shape),
            expected=list(expected.shape),
        )
    if sent.dtype != expected.dtype:
        raise DtypeMismatch(
            f"array {name!r} has dtype {sent.dtype}; the model's spec says {expected.dtype}",
            array=name,
            found=sent.dtype,
            expected=expected.dtype,
        )
