"""JSON text of weights, read and written fast with orjson: the same values and layouts as json_layouts.

This module and json_pieces are the only ones of fma_core that need orjson, which the server installs; the client
library reads and writes JSON with the standard library.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from fma_core.arrays.codecs.json_layouts import Layout, arrange, plain
from fma_core.arrays.spec import Arrays
from fma_core.errors import MalformedJson, NonFiniteValue, TooLarge

CONTAINERS = frozenset({list, dict})
# Measured with orjson for each byte that begins an object of Python, the arrays made of it included. An element of
# weights takes 60 bytes, an empty list 88, an object with one member 240, a named array 400.
OBJECT_BYTES = {b",": 64, b"[": 96, b"{": 160, b":": 350, b'"': 32}
# Characters beyond U+FFFF, which an escape may be, too; beyond U+00FF.
WIDEST = re.compile(rb"[\xf0-\xff]")
WIDE = re.compile(rb"[\xc4-\xef]")
MAX_CONTAINERS = 20_000
MAX_DEPTH = 250
"""Far more than anybody needs. orjson writes 254 levels, and Python's repr of about 900 raises RecursionError."""


def loads(data: bytes | bytearray | memoryview) -> object:
    """Parse JSON text; NaN, Infinity, invalid UTF-8 and nesting beyond MAX_DEPTH are refused.

    Integers beyond 64 bits become the nearest float, as orjson reads them.
    """
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        word = re.match(rb"-?(NaN|Infinity)", bytes(data[error.pos : error.pos + 10]))
        what = f"{word[0].decode()} is not JSON, and no weight" if word else error.msg
        raise MalformedJson(
            f"the body is not valid JSON: {what}, at line {error.lineno} column {error.colno}",
            line=error.lineno,
            column=error.colno,
        ) from error
    text = bytes(data) if isinstance(data, memoryview) else data
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and type(value) in CONTAINERS:
        _require_shallow(value)
    return value


def _require_shallow(value: object) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        members = (parent.values() if type(parent) is dict else parent for parent in level)
        # Whether a list of numbers holds no other list is seen without a loop in Python.
        mixed = (several for several in members if not CONTAINERS.isdisjoint(map(type, several)))
        level = [member for several in mixed for member in several if type(member) in CONTAINERS]
        if not level:
            return
    raise MalformedJson(f"JSON may be nested {MAX_DEPTH} levels deep; the body is deeper")


def require_few_containers(text: bytes) -> None:
    """Raise TooLarge for a mebibyte of lists: parsing it takes 0.4 s, and one of numbers 0.015 s."""
    found = text.count(b"[") + text.count(b"{")
    if found > MAX_CONTAINERS:
        raise TooLarge(
            f"JSON without its weights may have {MAX_CONTAINERS} lists and objects; this has {found}",
            found=found,
            limit=MAX_CONTAINERS,
        )


def parsed_bytes(text: bytes | bytearray) -> int:
    """The most memory that parsing this JSON takes, with the arrays that are made of it."""
    return len(text) * _text_width(text) + sum(text.count(byte) * size for byte, size in OBJECT_BYTES.items())


def _text_width(text: bytes | bytearray) -> int:
    """The bytes that a byte of text may become: all characters of a string of Python are as wide as its widest."""
    if b"\\u" in text:
        return 5
    if text.isascii():
        return 1
    return 5 if WIDEST.search(text) else 3 if WIDE.search(text) else 1


def dumps(arrays: Arrays, layout: Layout) -> bytes:
    """The JSON text of these arrays; parsing it gives exactly the same values."""
    values: dict[str, Any] = {}
    for name, array in arrays.items():
        try:
            values[name] = _writable(plain(array))
        except NonFiniteValue as error:
            raise NonFiniteValue(f"array {name!r}: {error.message}", array=name) from None
    return orjson.dumps(arrange(values, layout), option=orjson.OPT_SERIALIZE_NUMPY)


def array_text(array: NDArray[Any]) -> bytes:
    """The JSON text of one array. Raises NonFiniteValue."""
    return orjson.dumps(_writable(plain(array)), option=orjson.OPT_SERIALIZE_NUMPY)


def _writable(array: NDArray[Any]) -> Any:
    # orjson writes C-ordered native arrays of at least one dimension; only the last side may be empty.
    if array.ndim == 0 or array.size == 0:
        return array.tolist()
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
