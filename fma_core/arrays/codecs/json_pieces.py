"""The JSON text of a file of weights, in pieces: memory holds a block of one array at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import orjson

from fma_core.arrays.codecs.header import Header
from fma_core.arrays.codecs.json_bytes import array_text
from fma_core.arrays.codecs.json_layouts import Layout, arrange
from fma_core.arrays.codecs.values import bad_value, first_bad_value, view_of
from fma_core.arrays.spec import ArraySpec

BLOCK_BYTES = 2**18
"""The bytes of weights that become text at one time; the text takes up to ten times as many."""

Read = Callable[[int, int], bytes]


def json_pieces(header: Header, read: Read, layout: Layout) -> Iterator[bytes]:
    """The text of `json_bytes.dumps` for the arrays of this header, in pieces.

    read(start, size): returns bytes of the file. Raises NonFiniteValue or ValueOutOfRange.
    """
    entries = {entry.array.name: entry for entry in header.entries}
    arranged = arrange({name: entries[name] for name in sorted(entries)}, layout)
    if layout == "array":
        yield from _array(arranged.array, read, header.data_start + arranged.start)
        return
    is_named = layout == "named"
    yield b"{" if is_named else b"["
    for index, (name, entry) in enumerate(arranged.items() if is_named else enumerate(arranged)):
        yield (b"," if index else b"") + (orjson.dumps(name) + b":" if is_named else b"")
        yield from _array(entry.array, read, header.data_start + entry.start)
    yield b"}" if is_named else b"]"


def _array(spec: ArraySpec, read: Read, start: int) -> Iterator[bytes]:
    yield from _nested(spec, spec.shape, spec.size_bytes, read, start, start)


def _nested(
    spec: ArraySpec, shape: tuple[int, ...], size_bytes: int, read: Read, start: int, array_start: int
) -> Iterator[bytes]:
    """The text of the items that begin at `start`, with this shape."""
    if size_bytes <= BLOCK_BYTES or not shape:
        yield _text(spec, shape, read(start, size_bytes), start - array_start)
        return
    item_bytes = size_bytes // shape[0]
    if item_bytes > BLOCK_BYTES:
        for index in range(shape[0]):
            yield b"," if index else b"["
            yield from _nested(spec, shape[1:], item_bytes, read, start + index * item_bytes, array_start)
    else:
        at_once = BLOCK_BYTES // item_bytes
        for index in range(0, shape[0], at_once):
            rows = min(at_once, shape[0] - index)
            first = start + index * item_bytes
            data = read(first, rows * item_bytes)
            yield b"," if index else b"["
            yield _text(spec, (rows, *shape[1:]), data, first - array_start)[1:-1]
    yield b"]"


def _text(spec: ArraySpec, shape: tuple[int, ...], data: bytes, offset: int) -> bytes:
    bad = first_bad_value(view_of(memoryview(data), spec.dtype), spec.dtype)
    if bad is not None:
        raise bad_value(spec.name, offset // spec.numpy_dtype.itemsize + bad, spec.dtype)
    return array_text(view_of(memoryview(data), spec.dtype).view(spec.numpy_dtype).reshape(shape))
