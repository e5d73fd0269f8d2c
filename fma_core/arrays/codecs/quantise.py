"""Quantisation of weights for the upload; the server widens them again (`fma_core.arrays.codecs.quantised`).

float16 and bfloat16 round each value to the nearest. int8 is symmetric, with one scale s = max|x| / 127 in float32 for
each array: q = rint(x / s). While s is no denormal, the error of a value is at most s / 2, plus half a unit in the last
place of the product s q in float32, and half a one in the model's dtype if that is narrower.

int8_stochastic sends the same format: x / s is rounded up with a probability of its fraction, and down otherwise. An
error may be as large as s, but its mean is 0: values far below s, which rint makes 0 at every client, survive in the
mean of many clients (QSGD, Alistarh et al. 2017, arXiv:1610.02132). The random numbers follow from the array's values,
so that an update that is encoded again has the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fma_core.arrays import dtypes
from fma_core.arrays.casting import cast
from fma_core.arrays.codecs.quantised import KIND, SCALES, WIDER
from fma_core.arrays.codecs.values import bad_value, first_bad_value
from fma_core.arrays.spec import Arrays, ArraySpec
from fma_core.errors import ValueOutOfRange

Quantisation = Literal["float16", "bfloat16", "int8", "int8_stochastic"]
# The number of values that are converted at a time, so that intermediate results stay in the cache.
BLOCK = 2**16
LARGEST_INT8 = 127


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The conversion of one array to a narrower dtype.

    scale: for int8 only. seed: of the random numbers of stochastic rounding; None rounds to the nearest.
    """

    sent_as: ArraySpec
    scale: np.float32 | None = None
    seed: int | None = None

    def __call__(self, values: NDArray[Any], first: int = 0) -> NDArray[Any]:
        """Convert some of the array's values. first: the index of the first of them, for messages.

        Raises NonFiniteValue, or ValueOutOfRange for a number that the narrower dtype cannot hold.
        """
        dtype = self.sent_as.numpy_dtype
        with np.errstate(over="ignore"):
            if self.scale is None:
                sent = _narrowed(values, self.sent_as.dtype)
            elif self.scale == 0:
                sent = np.zeros(len(values), dtype)
            else:
                # A quotient in a narrower dtype would be rounded before it is rounded.
                quotients = np.divide(values.astype(np.float64), np.float64(self.scale))
                if self.seed is None:
                    np.rint(quotients, out=quotients)
                else:
                    rng = np.random.Generator(np.random.PCG64([self.seed, first]))
                    np.floor(np.add(quotients, rng.random(len(quotients)), out=quotients), out=quotients)
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
    kinds = get_args(Quantisation)
    if kind not in kinds:
        raise ValueError(f"quantise can be {', '.join(kinds)} or None; got {kind!r}")
    sent_as = "int8" if kind == "int8_stochastic" else str(kind)
    narrowing_of = {
        name: Narrowing(
            ArraySpec(name, array.shape, sent_as),
            _scale(name, array) if sent_as == "int8" else None,
            _seed(name, array) if kind == "int8_stochastic" else None,
        )
        for name, array in arrays.items()
        if dtypes.name_of(array.dtype, array=name) in WIDER[sent_as]
    }
    metadata = {KIND: sent_as}
    if sent_as == "int8":
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


def _narrowed(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    # Through float64, which holds all of them: bfloat16 of ml_dtypes rounds twice.
    return cast(values.astype(np.float64), dtype)


def _seed(name: str, array: NDArray[Any]) -> int:
    digest = hashlib.sha256(name.encode())
    for block in blocks(array):
        digest.update(block.view(np.uint8).data)
    return int.from_bytes(digest.digest()[:16])


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
        # The server multiplies in float32.
        is_finite = np.isfinite(scale * np.float32(LARGEST_INT8))
    if not is_finite:
        raise ValueOutOfRange(
            f"array {name!r} has values up to {largest}, beyond float32; int8 cannot scale them", array=name
        )
    return scale
