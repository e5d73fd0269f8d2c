"""The dtypes that weights may have: their names here, in numpy, and in a safetensors header.

All bytes are little-endian, as in safetensors and on every machine with numpy wheels except s390x.
"""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from fma_core.errors import InvalidSpec

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("fma_core needs a little-endian machine: weights are stored as they lie in memory")

# name -> (numpy dtype, safetensors tag)
_TABLE: dict[str, tuple[np.dtype[Any], str]] = {
    "bool": (np.dtype(np.bool_), "BOOL"),
    "uint8": (np.dtype(np.uint8), "U8"),
    "int8": (np.dtype(np.int8), "I8"),
    "uint16": (np.dtype(np.uint16), "U16"),
    "int16": (np.dtype(np.int16), "I16"),
    "uint32": (np.dtype(np.uint32), "U32"),
    "int32": (np.dtype(np.int32), "I32"),
    "uint64": (np.dtype(np.uint64), "U64"),
    "int64": (np.dtype(np.int64), "I64"),
    "float16": (np.dtype(np.float16), "F16"),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), "BF16"),
    "float32": (np.dtype(np.float32), "F32"),
    "float64": (np.dtype(np.float64), "F64"),
}

NUMPY_DTYPES = MappingProxyType({name: dtype for name, (dtype, _) in _TABLE.items()})
TAGS = MappingProxyType({name: tag for name, (_, tag) in _TABLE.items()})
NAMES_BY_TAG = MappingProxyType({tag: name for name, (_, tag) in _TABLE.items()})
ITEM_SIZES = MappingProxyType({name: dtype.itemsize for name, (dtype, _) in _TABLE.items()})
_NAMES_BY_DTYPE = {dtype: name for name, dtype in NUMPY_DTYPES.items()}
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def name_of(dtype: np.dtype[Any], *, array: str) -> str:
    """The name of a numpy dtype of any byte order; `array` is the name for the error when weights cannot have it."""
    # numpy builds dtype.name on every access, ten times slower than this table, which holds the native byte order.
    name = _NAMES_BY_DTYPE.get(dtype) or dtype.name
    if name not in _TABLE:
        raise InvalidSpec(
            f"array {array!r} has dtype {name}; weights can be {', '.join(_TABLE)}", array=array, dtype=name
        )
    return name
