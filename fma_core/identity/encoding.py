"""The bytes that are signed: a label, then the values, each with its length before it.

Two different lists of values never have the same bytes, and the label keeps a signature of one purpose from counting
for another.
"""

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

MOST = 2**64 - 1


def statement(label: str, *values: bytes) -> bytes:
    """A label and its values: each as its length in four bytes, big-endian, and then itself."""
    return b"".join(_sized(value) for value in (label.encode(), *values))


def whole(number: int | None) -> bytes:
    """A number from 0 to 2**64 - 1 in eight bytes, big-endian; no bytes for None."""
    return b"" if number is None else number.to_bytes(8, "big")


def json_digest(value: Any) -> bytes:
    """The SHA-256 of a JSON value, the same for all texts of it: order of members and form of numbers do not count.

    Raises ValueError for what is no JSON value, such as a number that is not finite.
    """
    return hashlib.sha256(_json_bytes(value)).digest()


def _json_bytes(value: Any) -> bytes:
    match value:
        case None:
            return b"n"
        case bool():
            return b"t" if value else b"f"
        case int() | float():
            return _number(value)
        case str():
            return b"s" + _sized(value.encode())
        case list() | tuple():
            return b"l" + _count(value) + b"".join(_json_bytes(item) for item in value)
        case Mapping():
            members = sorted((name.encode(), member) for name, member in _named(value).items())
            return (
                b"o"
                + _count(members)
                + b"".join(_sized(name) + _json_bytes(member) for name, member in members)
            )
    raise ValueError(f"a {type(value).__name__} is no JSON value")


def _number(value: int | float) -> bytes:
    try:
        as_double = float(value)
    except OverflowError:
        as_double = 0.0
    if as_double - as_double != 0.0:
        raise ValueError(f"a number in JSON is finite; found {value}")
    # Databases and other languages give 1.0 for 1, and 1 for 1.0.
    if as_double == value:
        return b"d" + struct.pack(">d", as_double + 0.0)  # -0.0 becomes 0.0
    return b"i" + _sized(str(value).encode())


def _named(value: Mapping[Any, Any]) -> Mapping[str, Any]:
    if not all(isinstance(name, str) for name in value):
        raise ValueError("the names of JSON members are texts")
    return value


def _sized(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _count(items: list[Any] | tuple[Any, ...]) -> bytes:
    return len(items).to_bytes(4, "big")
