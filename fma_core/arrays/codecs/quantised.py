"""Quantised weights: the declaration in a header, and the conversion back to the model's dtypes.

    fma.quantised   float16 or bfloat16: an array that is float32 or float64 in the model may come in that dtype
                    int8: an array of any floating dtype may come as int8; its values are float32(q) * s
    fma.scales      for int8: JSON, {name: s} of exactly the arrays that come so; s is rounded to float32

docs/reference/wire-formats.md has the same rule; clients quantise with `fma_core.arrays.codecs.quantise`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fma_core.arrays import dtypes
from fma_core.arrays.codecs.values import bad_value, first_bad_value
from fma_core.arrays.spec import ArraySpec, Spec
from fma_core.errors import InvalidQuantisation

KIND = "fma.quantised"
SCALES = "fma.scales"
# The dtypes that an array may have in the model, by the dtype in which it was sent.
WIDER: Mapping[str, frozenset[str]] = {
    "float16": frozenset({"float32", "float64"}),
    "bfloat16": frozenset({"float32", "float64"}),
    "int8": dtypes.FLOATS,
}


@dataclass(frozen=True, slots=True)
class Widening:
    """The conversion of one array to the model's dtype. scale: for int8 only."""

    array: ArraySpec
    sent_as: str
    scale: np.float32 | None = None

    def __call__(self, data: memoryview, first: int) -> memoryview:
        """Convert the bytes of some values to the model's. first: the index of the first of them, for messages."""
        sent = np.frombuffer(data, dtypes.NUMPY_DTYPES[self.sent_as])
        # A product beyond float32 or the model's dtype becomes infinite, which is refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            values: NDArray[Any] = sent if self.scale is None else sent.astype(np.float32) * self.scale
            values = values.astype(self.array.numpy_dtype, copy=False)
        index = first_bad_value(values, self.array.dtype)
        if index is not None:
            raise bad_value(self.array.name, first + index, self.array.dtype)
        return values.view(np.uint8).data


def widenings(sent: Spec, metadata: Mapping[str, str], spec: Spec | None) -> dict[str, Widening]:
    """The conversion of each array that was sent in a narrower dtype, by name; empty without a declaration.

    Arrays that the declaration does not cover keep their dtype; `spec.check` compares it.
    Raises InvalidQuantisation.
    """
    kind = metadata.get(KIND)
    if kind is None:
        if SCALES in metadata:
            raise InvalidQuantisation(f"the header has {SCALES} without {KIND}")
        return {}
    if kind not in WIDER:
        raise InvalidQuantisation(f"{KIND} can be {', '.join(WIDER)}; found {kind[:40]!r}")
    if spec is None:
        raise InvalidQuantisation(
            "quantised weights need a model whose arrays are known; the first weights of one must come as they are"
        )
    narrower = {
        array.name: spec.by_name[array.name]
        for array in sent.arrays
        if array.dtype == kind != spec_dtype(spec, array.name) and spec_dtype(spec, array.name) in WIDER[kind]
    }
    if kind != "int8":
        if SCALES in metadata:
            raise InvalidQuantisation(f"{SCALES} is for int8; the header says {KIND} is {kind}")
        return {name: Widening(array, kind) for name, array in narrower.items()}
    scales = _scales(metadata.get(SCALES))
    for name in sorted({*narrower, *scales}):
        if name not in scales:
            raise InvalidQuantisation(
                f"array {name!r} came as int8; {SCALES} has no scale for it", array=name
            )
        if name not in narrower:
            raise InvalidQuantisation(
                f"{SCALES} names {name[:80]!r}, which is no floating-point array that came as int8",
                array=name,
            )
    return {name: Widening(array, kind, _scale(name, scales[name])) for name, array in narrower.items()}


def widened(sent: Spec, by_name: Mapping[str, Widening]) -> Spec:
    """The spec of the arrays after the conversion."""
    if not by_name:
        return sent
    return Spec(
        tuple(
            ArraySpec(array.name, array.shape, by_name[array.name].array.dtype)
            if array.name in by_name
            else array
            for array in sent.arrays
        )
    )


def spec_dtype(spec: Spec, name: str) -> str | None:
    array = spec.by_name.get(name)
    return None if array is None else array.dtype


def _scales(text: str | None) -> dict[str, Any]:
    if text is None:
        raise InvalidQuantisation(f"int8 weights need {SCALES}, the scale of each array, in the header")
    try:
        scales = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidQuantisation(f"{SCALES} is not valid JSON: {error}") from error
    if not isinstance(scales, dict):
        raise InvalidQuantisation(f"{SCALES} must be a JSON object of numbers by array")
    return scales


def _scale(name: str, number: object) -> np.float32:
    if type(number) not in (int, float):
        raise InvalidQuantisation(f"the scale of array {name!r} must be a number", array=name)
    try:
        with np.errstate(over="ignore"):
            scale = np.float32(number)  # type: ignore[arg-type]  # an int or a float
    except OverflowError:
        scale = np.float32(np.inf)
    if not (np.isfinite(scale) and scale >= 0):
        raise InvalidQuantisation(
            f"the scale of array {name!r} must be a float32 of 0 or above, and finite", array=name
        )
    return scale


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise InvalidQuantisation(f"{SCALES} names an array twice")
    return fields


def _no_number(text: str) -> NoReturn:
    raise InvalidQuantisation(f"{SCALES} must hold finite numbers, found {text}")
