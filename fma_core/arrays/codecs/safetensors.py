"""Convert arrays to safetensors bytes and back: one canonical file for each set of arrays, and checks when reading."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fma_core.arrays.codecs.header import (
    Entry,
    Header,
    canonical_entries,
    canonical_form,
    canonical_header,
    read_header,
)
from fma_core.arrays.codecs.limits import DEFAULT_LIMITS, Limits
from fma_core.arrays.codecs.values import bad_value, first_bad_value, view_of
from fma_core.arrays.spec import Arrays, ArraySpec, Spec
from fma_core.errors import TooLarge, TruncatedBody

__all__ = [
    "Entry",
    "Header",
    "Limits",
    "canonical_entries",
    "canonical_header",
    "checked_bytes",
    "decode",
    "encode",
    "encode_as",
    "layout_within",
    "read_file",
    "read_header",
]


def encode(arrays: Arrays) -> bytes:
    """Encode arrays as their canonical file; any memory layout and byte order is accepted.

    Raises InvalidSpec for arrays that cannot be weights, NonFiniteValue for a NaN or an infinity.
    """
    return encode_as(Spec.of(arrays), arrays)


def encode_as(spec: Spec, arrays: Arrays) -> bytes:
    """Encode arrays that are known to match a spec."""
    data = (checked_bytes(array, arrays[array.name]) for array in spec.arrays)
    return b"".join((canonical_header(spec), *data))


def decode(data: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> dict[str, NDArray[Any]]:
    """Decode and check a whole safetensors body: arrays by sorted name, as writable copies."""
    view = memoryview(data).cast("B")
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        piece = bytes(view[position : position + size])
        position += len(piece)
        return piece

    def fill(raw: NDArray[np.uint8]) -> None:
        nonlocal position
        raw[:] = np.frombuffer(view, np.uint8, raw.size, position)
        position += raw.size

    return _read_arrays(read_header(read, size_bytes=len(view), limits=limits), fill)


def read_file(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> dict[str, NDArray[Any]]:
    """Read and check the arrays of a safetensors file, by sorted name; memory holds them once."""
    with open(path, "rb") as file:

        def fill(raw: NDArray[np.uint8]) -> None:
            if file.readinto(raw.data) < raw.size:
                raise TruncatedBody("the file ended before its announced end")

        return _read_arrays(
            read_header(file.read, size_bytes=os.fstat(file.fileno()).st_size, limits=limits), fill
        )


def layout_within(spec: Spec, limits: Limits) -> bytes:
    """The canonical header of a spec. Raises TooLarge when the file would exceed the limits."""
    form = canonical_form(spec)
    limits.require_few_arrays(len(spec.arrays))
    if form.size_bytes > limits.max_bytes:
        raise TooLarge(
            f"the weights take {form.size_bytes} bytes; at most {limits.max_bytes} are accepted",
            found=form.size_bytes,
            limit=limits.max_bytes,
        )
    return form.header


def checked_bytes(spec: ArraySpec, array: NDArray[Any]) -> memoryview:
    """The little-endian bytes of an array, in C order, after a check of every value."""
    data = unchecked_bytes(spec, array)
    index = first_bad_value(view_of(data, spec.dtype), spec.dtype)
    if index is not None:
        raise bad_value(spec.name, index, spec.dtype)
    return data


def unchecked_bytes(spec: ArraySpec, array: NDArray[Any]) -> memoryview:
    """The little-endian bytes of an array, in C order, without a check of its values."""
    return np.ascontiguousarray(array, dtype=spec.numpy_dtype).reshape(-1).view(np.uint8).data


def _read_arrays(header: Header, fill: Callable[[NDArray[np.uint8]], None]) -> dict[str, NDArray[Any]]:
    """Read the arrays of a header; fill(buffer): fills the buffer with the next bytes."""
    arrays = {entry.array.name: _read_array(fill, entry.array) for entry in header.entries}
    return {name: arrays[name] for name in sorted(arrays)}


def _read_array(fill: Callable[[NDArray[np.uint8]], None], spec: ArraySpec) -> NDArray[Any]:
    raw = np.empty(spec.size_bytes, np.uint8)
    fill(raw)
    index = first_bad_value(view_of(raw.data, spec.dtype), spec.dtype)
    if index is not None:
        raise bad_value(spec.name, index, spec.dtype)
    return raw.view(spec.numpy_dtype).reshape(spec.shape)
