"""Numbers that many clients measured, as one row of statistics for each name.

    merge([(300, {"loss": 0.5, "eval": {"f1": 0.9}}), (100, {"loss": 0.7})])["loss"]
    {"mean": 0.55, "min": 0.5, "max": 0.7, "p5": 0.51, "p50": 0.6, "p95": 0.69, "count": 2, "weight": 400}

What clients send is theirs to choose, so that names are bounded here: one client can neither fill the record nor crowd
out the names of the others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

__all__ = ["MAX_NAMES", "MAX_NAME_LENGTH", "PERCENTILES", "STATISTICS", "merge", "numbers_of"]

MAX_NAMES = 256
MAX_NAME_LENGTH = 128
PERCENTILES: Mapping[str, float] = {"p5": 0.05, "p50": 0.5, "p95": 0.95}
STATISTICS = ("mean", "min", "max", *PERCENTILES, "count", "weight")


def numbers_of(said: object) -> dict[str, float]:
    """The numbers of a JSON object by name; those of an object within it by both names, joined with a dot.

    Anything but an object has none. Text, lists, booleans, null, and what is not finite are left out. At most
    MAX_NAMES, the first by name.
    """
    if not isinstance(said, Mapping):
        return {}
    found = ((name, value) for name, value in _walk(said) if len(name) <= MAX_NAME_LENGTH)
    return dict(islice(found, MAX_NAMES))


def merge(rows: Iterable[tuple[float, Mapping[str, object]]]) -> dict[str, dict[str, float]]:
    """What each metric is over all rows: the STATISTICS, by name.

    rows: a client's weight (how many examples it learnt from; above 0) and what it measured.
    mean is weighted; min, max and the percentiles are those of the clients, each counting once, so that they show how
    unequally clients fare. count: how many clients gave the metric, weight: the sum of their weights.
    Percentiles are interpolated linearly. Source: Hyndman and Fan 1996, definition 7.
    The order of the rows does not matter, to the last bit. Beyond MAX_NAMES the names that most clients gave are kept.
    """
    columns: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for weight, metrics in rows:
        for name, value in numbers_of(metrics).items():
            columns[name].append((weight, value))
    kept = sorted(columns, key=lambda name: (-len(columns[name]), name))[:MAX_NAMES]
    return {name: _statistics(columns[name]) for name in sorted(kept)}


def _walk(members: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key in sorted(members):
        value = members[key]
        if isinstance(value, Mapping):
            yield from _walk(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and _is_finite(value):
            yield f"{prefix}{key}", float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _statistics(column: Sequence[tuple[float, float]]) -> dict[str, float]:
    values = sorted(value for _, value in column)
    weight = math.fsum(weight for weight, _ in column)
    # Rounding may put the mean of equal numbers beside them.
    mean = min(max(_weighted_mean(column, weight), values[0]), values[-1])
    percentiles = {name: _percentile(values, share) for name, share in PERCENTILES.items()}
    return {
        "mean": mean,
        "min": values[0],
        "max": values[-1],
        **percentiles,
        "count": len(values),
        "weight": weight,
    }


def _weighted_mean(column: Sequence[tuple[float, float]], total: float) -> float:
    try:
        mean = math.fsum(weight * value for weight, value in column) / total
    except (OverflowError, ValueError):  # beyond the range of floats, or inf - inf
        mean = math.inf
    if math.isfinite(mean):
        return mean
    return math.fsum(weight / total * value for weight, value in column)


def _percentile(values: Sequence[float], share: float) -> float:
    position = share * (len(values) - 1)
    below = math.floor(position)
    above = min(below + 1, len(values) - 1)
    part = position - below
    # Not below + part * (above - below), which overflows for numbers of both signs.
    between = (1 - part) * values[below] + part * values[above]
    return min(max(between, values[below]), values[above])
