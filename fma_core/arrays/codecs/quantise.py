"""Quantisation of weights for the upload; the server widens them again (`fma_core.arrays.codecs.quantised`).

float16 and bfloat16 round each value to the nearest. int8 is symmetric, with one scale s = max|x| / 127 in float32 for
each array: q = rint(x / s), so that the error of a value is at most s / 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fma_core.arrays import dtypes
from fma_core.arrays.codecs.quantised import KIND, SCALES, WIDER
from fma_core.arrays.codecs.values import bad_value, first_bad_value
from fma_core.arrays.spec import Arrays, ArraySpec
from fma_core.errors import ValueOutOfRange

Quantisation = Literal["float16", "bfloat16", "int8"]
# The number of values that are converted at a time, so that intermediate results stay in the cache.
BLOCK = 2**16
LARGEST_INT8 = 127


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The conversion of one array to a narrower dtype. scale: for int8 only."""

    sent_as: ArraySpec
    scale: np.float32 | None = None

    def __call__(self, values: NDArray[Any], first: int = 0) -> NDArray[Any]:
        """Convert some of the array's values. first: the index of the first of them, for messages.

        Raises NonFiniteValue, or ValueOutOfRange for a number that the narrower dtype cannot hold.
        """
        dtype = self.sent_as.numpy_dtype
        with np.errstate(over="ignore"):
            if self.scale is None:
                sent = values.astype(dtype)
            elif self.scale == 0:
                sent = np.zeros(len(values), dtype)
            else:
                # A quotient in float16 would be too coarse, and numpy 1 divides a float16 array by a scalar in float16.
                wide = np.result_type(values.dtype, np.float32)
                quotients = np.rint(np.divide(values, self.scale, dtype=wide))
                sent = np.clip(quotients, -LARGEST_INT8, LARGEST_INT8).astype(dtype)
        index = first_bad_value(sent, self.sent_as.dtype)
        if index is not None:
            if not np.isfinite(values[index]):
                raise bad_value(self.sent_as.name, first + index, values.dtype.name)
            raise ValueOutOfRange(
                f"array {self.sent_as.name!r} has the value {values[index]}, which {self.sent_as.dtype} cannot hold; "
                "send it as it is, or as bfloat16 or int8",
                array=self.sent_as.name,
            )
        return sent


def narrowings(arrays: Arrays, kind: Quantisation) -> tuple[dict[str, Narrowing], dict[str, str]]:
    """The conversions of all arrays that can be narrower, and the `__metadata__` that declares them.

    Raises ValueError for an unknown kind, NonFiniteValue, ValueOutOfRange.
    """
    if kind not in WIDER:
        raise ValueError(f"quantise can be {', '.join(WIDER)} or None; got {kind!r}")
    narrowing_of = {
        name: Narrowing(ArraySpec(name, array.shape, kind), _scale(name, array) if kind == "int8" else None)
        for name, array in arrays.items()
        if dtypes.name_of(array.dtype, array=name) in WIDER[kind]
    }
    metadata = {KIND: str(kind)}
    if kind == "int8":
        # As a float64, which JSON writes and reads without loss.
        metadata[SCALES] = json.dumps(
            {name: float(narrowing.scale or 0) for name, narrowing in narrowing_of.items()},
            separators=(",", ":"),
            ensure_ascii=False,
        )
    return narrowing_of, metadata


def blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The values of an array in C order, in blocks."""
    flat = np.ascontiguousarray(array).reshape(-1)
    for start in range(0, len(flat), BLOCK):
        yield flat[start : start + BLOCK]


def _scale(name: str, array: NDArray[Any]) -> np.float32:
    largest = 0.0
    for start, block in enumerate(blocks(array)):
        index = first_bad_value(block, array.dtype.name)
        if index is not None:
            raise bad_value(name, start * BLOCK + index, array.dtype.name)
        largest = max(largest, float(np.abs(block).max()))
    with np.errstate(over="ignore"):
        scale = np.float32(largest / LARGEST_INT8)
        if np.isfinite(scale) and not np.isfinite(scale * np.float32(LARGEST_INT8)):
            scale = np.nextafter(scale, np.float32(0))
    if not np.isfinite(scale):
        raise ValueOutOfRange(
            f"array {name!r} has values up to {largest}, beyond float32; int8 cannot scale them", array=name
        )
    return scale
