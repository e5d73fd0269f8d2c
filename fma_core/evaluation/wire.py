"""Checks of numbers from other machines: a value that is not a count or a sum is refused, with its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fma_core.errors import InvalidStatistics

Counts = npt.NDArray[np.int64]

# The counts of eight million clients with a trillion examples each still fit into 64 bits.
MAX_COUNT = 2**40
# Squares and sums of many clients are far from an overflow below this bound.
MAX_SUM = 1e140


def members_of(value: Any, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        given = sorted(map(str, value)) if isinstance(value, dict) else value
        raise InvalidStatistics(
            f"statistics of this question are an object of {', '.join(names)}; found {given!r:.200}"
        )
    return value


def count_of(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise InvalidStatistics(
            f"{where} must be an integer from 0 to 2**40; found {value!r:.60}", where=where
        )
    return value


def sum_of(value: Any, where: str, *, at_least: float = -MAX_SUM) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # A comparison with NaN is false, and one with an integer of any length is exact.
    if not is_number or not at_least <= value <= MAX_SUM:
        raise InvalidStatistics(
            f"{where} must be a number from {at_least:g} to {MAX_SUM:g}; found {value!r:.60}", where=where
        )
    return float(value)


def table_of(value: Any, shape: tuple[int, int], where: str) -> Counts:
    rows, columns = shape
    fits = isinstance(value, list) and len(value) == rows
    if not fits or not all(isinstance(row, list) and len(row) == columns for row in value):
        raise InvalidStatistics(f"{where} must be {rows} lists of {columns} counts", where=where)
    counts = [count_of(member, where) for row in value for member in row]
    return np.array(counts, np.int64).reshape(shape)
