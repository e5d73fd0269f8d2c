"""Values of callers as JSON: numbers and arrays of numpy and torch become numbers and lists.

Everything that this library sends as JSON passes here. A value with one meaning is converted. A number that is not
finite has no JSON: in metrics it becomes null, with a warning that names the metric; elsewhere it is refused.
"""

from __future__ import annotations

import json
import logging
import math
import operator
from collections.abc import Callable, Iterable, KeysView, Mapping, Sequence, Set, ValuesView
from datetime import date, time
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from os import PathLike, fspath
from typing import Any
from uuid import UUID

import numpy as np

from fma_connect.exceptions import InvalidArgument

__all__ = ["dumps", "metrics_json", "positive_int", "to_json"]

logger = logging.getLogger("fma_connect")

# Deeper than any parser accepts; without a limit, a list that contains itself would never end.
MOST_LEVELS = 100

NotFinite = Callable[[float, str], None]


def dumps(value: Any, *, where: str = "") -> str:
    """Compact ASCII JSON of a value. Raises InvalidArgument, which names the place.

    where: the name of the value in messages.
    """
    try:
        # Values that are JSON already are the most frequent ones, and need no copy.
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        plain = to_json(value, where=where)
    return json.dumps(plain, allow_nan=False, separators=(",", ":"))


def to_json(value: Any, *, where: str = "") -> Any:
    """Convert a value to None, bool, int, float, str, list and dict. Raises InvalidArgument, which names the place."""
    return _Conversion(_refuse).of(value, where, 0)


def metrics_json(metrics: Any, *, where: str = "metrics") -> Any:
    """Convert metrics: a number that is not finite becomes null, with a warning; an array of one number is a number."""
    return _Conversion(_warn, one_is_a_number=True).of(metrics, where, 0)


def positive_int(value: Any, name: str, *, at_least: int = 1) -> int:
    """Read a number that is large enough: an int, one of numpy or torch, a whole float, or its decimal digits.

    Raises InvalidArgument.
    """
    number = _whole(value)
    if number is not None and number < at_least:
        raise InvalidArgument(f"{name} must be at least {at_least}; got {value}")
    if number is None:
        raise InvalidArgument(f"{name} must be a whole number of at least {at_least}; got {value!r:.100}")
    return number


def _whole(value: Any) -> int | None:
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else None
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        pass
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return int(number) if number.is_integer() else None


class _Conversion:
    """not_finite: called with a number that is not finite, and its place."""

    def __init__(self, not_finite: NotFinite, *, one_is_a_number: bool = False) -> None:
        self._not_finite = not_finite
        self._one_is_a_number = one_is_a_number

    def of(self, value: Any, where: str, level: int) -> Any:
        if level > MOST_LEVELS:
            raise InvalidArgument(
                f"{_place(where[:100])} has more than {MOST_LEVELS} levels, or contains itself"
            )
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self.of(value.value, where, level + 1)
        if isinstance(value, str):
            return str(value)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float | np.floating | Decimal | Fraction):
            return self._number(_float(value), where)
        if isinstance(value, Mapping):
            return self._object(value, where, level)
        if isinstance(value, list | tuple):
            return self._list(value, where, level)
        if isinstance(value, date | time):  # a datetime is a date
            return value.isoformat()
        if isinstance(value, UUID):
            return str(value)
        if isinstance(value, PathLike):
            return self.of(fspath(value), where, level + 1)
        return self._other(value, where, level)

    def _other(self, value: Any, where: str, level: int) -> Any:
        # By what they can do: neither torch nor tensorflow is imported for this.
        for convert in ("tolist", "numpy"):
            if callable(getattr(value, convert, None)) and not isinstance(value, type):
                try:
                    plain = getattr(value, convert)()
                except Exception as error:
                    raise InvalidArgument(
                        f"{_place(where)} is a {type(value).__name__} that cannot be read: {error}"
                    ) from error
                if self._one_is_a_number:
                    plain = _only_number(plain)
                if type(plain) is not type(value):
                    return self.of(plain, where, level + 1)
        if isinstance(value, KeysView | ValuesView) or (
            isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview)
        ):
            return self._list(value, where, level)
        if isinstance(value, Set):
            try:
                return self._list(sorted(value), where, level)
            except TypeError:
                pass
        for kind, read in (("__index__", operator.index), ("__float__", float)):
            if hasattr(type(value), kind):
                number: Any = read(value)
                return self.of(number, where, level + 1)
        raise InvalidArgument(
            f"{_place(where)} is a {type(value).__name__}, which has no JSON; numbers, texts, lists, mappings and "
            "arrays have one"
        )

    def _number(self, number: float, where: str) -> float | None:
        if math.isfinite(number):
            return number
        self._not_finite(number, where)
        return None

    def _list(self, items: Iterable[Any], where: str, level: int) -> list[Any]:
        return [self.of(item, f"{where}[{index}]", level + 1) for index, item in enumerate(items)]

    def _object(self, members: Mapping[Any, Any], where: str, level: int) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, member in members.items():
            name = _name_of(key, where)
            if name in content:
                raise InvalidArgument(f"{_place(where)} has two members that are both called {name!r}")
            content[name] = self.of(member, f"{where}.{name}" if where else name, level + 1)
        return content


def _float(value: Any) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):  # a signalling NaN, a fraction beyond the floats
        return math.nan


def _only_number(plain: Any) -> Any:
    """The number in nested lists of one number; other values unchanged."""
    inner = plain
    while isinstance(inner, list) and len(inner) == 1:
        inner = inner[0]
    return plain if isinstance(inner, list) else inner


def _name_of(key: Any, where: str) -> str:
    if isinstance(key, Enum):
        return _name_of(key.value, where)
    if isinstance(key, str):
        return str(key)
    if key is None or isinstance(key, bool | np.bool_):
        return json.dumps(None if key is None else bool(key))
    if isinstance(key, int | np.integer):
        return str(int(key))
    if isinstance(key, float | np.floating) and math.isfinite(key):
        return repr(float(key))
    if isinstance(key, date | UUID):
        return str(key)
    raise InvalidArgument(f"{_place(where)} has the key {key!r:.100}; keys are texts")


def _refuse(number: float, where: str) -> None:
    raise InvalidArgument(f"{_place(where)} is {number}, which has no JSON: give a finite number, or None")


def _warn(number: float, where: str) -> None:
    logger.warning("metric_not_finite metric=%s value=%s: it is sent as null", where, number)


def _place(where: str) -> str:
    return where or "the value"
