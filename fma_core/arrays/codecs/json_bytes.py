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
from fma_core.errors import MalformedJson, NonFiniteValue

CONTAINERS = frozenset({list, dict})
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
