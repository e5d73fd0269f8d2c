"""JSON that others send and the record keeps: bounded, and writable to every database and back to every client."""

import json
from typing import Any

from fma_django.errors import InvalidValue
from fma_django.models.stored_json import StoredEncoder

MAX_DEPTH = 64


def require_storable(value: Any, *, field: str, max_bytes: int | None = None) -> str:
    """The value as JSON text with sorted keys.

    Raises InvalidValue for NaN and Infinity, which are not JSON; for NUL characters, which PostgreSQL cannot keep; for
    halves of surrogate pairs, which no UTF-8 can hold; for integers beyond 64 bits, which our JSON writer does not
    write; beyond MAX_DEPTH levels of nesting, and beyond `max_bytes`.
    """
    _require_plain(value, field, depth=0)
    try:
        text = json.dumps(value, cls=StoredEncoder, allow_nan=False, sort_keys=True, ensure_ascii=False)
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidValue(
            "may not hold half of a surrogate pair (\\ud800 … \\udfff)", field=field
        ) from error
    except ValueError as error:
        raise InvalidValue("must be JSON without NaN and Infinity", field=field) from error
    if max_bytes is not None and size > max_bytes:
        raise InvalidValue(f"may take {max_bytes} bytes as JSON; found {size}", field=field)
    return text


def _require_plain(value: Any, field: str, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidValue(f"may be nested {MAX_DEPTH} levels deep", field=field)
    if isinstance(value, str):
        if "\x00" in value:
            raise InvalidValue("may not hold the NUL character (\\u0000)", field=field)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidValue("may not hold integers beyond 64 bits", field=field)
    elif isinstance(value, dict):
        for key, member in value.items():
            _require_plain(key, field, depth=depth + 1)
            _require_plain(member, field, depth=depth + 1)
    elif isinstance(value, list):
        for member in value:
            _require_plain(member, field, depth=depth + 1)
