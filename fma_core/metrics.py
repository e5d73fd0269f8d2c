"""Statistics of the numbers that many clients measured: one row for each name.

Clients choose the names of their metrics, so their number and length are bounded here: one client can neither fill the
database nor displace the names of the others.
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


def numbers_of(metrics: object) -> dict[str, float]:
    """The numbers of a JSON object by name; numbers of a nested object have both names, joined with a dot.

    Text, lists, booleans, null and numbers that are not finite are left out, and at most MAX_NAMES are taken, the first
    by name. A value that is not an object has no numbers.
    """
    if not isinstance(metrics, Mapping):
        return {}
    numbers = ((name, value) for name, value in _walk(metrics) if len(name) <= MAX_NAME_LENGTH)
    return dict(islice(numbers, MAX_NAMES))


def merge(rows: Iterable[tuple[float, Mapping[str, object]]]) -> dict[str, dict[str, float]]:
    """The STATISTICS of each metric over all rows, by its name.

    rows: the weight of a client (its number of examples; above 0) and its metrics.
    mean is weighted. In min, max and the percentiles each client counts once, so that they show how unequal the clients
    are. count: the number of clients that gave the metric; weight: the sum of their weights.
    Percentiles are interpolated linearly. Source: Hyndman and Fan 1996, definition 7.
    The result does not depend on the order of the rows. Beyond MAX_NAMES, the names that most clients gave are kept.

    >>> merge([(3, {"loss": 2.0}), (1, {"loss": 4.0, "eval": {"f1": 0.5}})])["loss"]
    {'mean': 2.5, 'min': 2.0, 'max': 4.0, 'p5': 2.1, 'p50': 3.0, 'p95': 3.9, 'count': 2, 'weight': 4.0}
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
    # Rounding may move the mean of equal numbers away from them.
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
    # Of halves: the shares may add up to a little more than 1, and the largest numbers would overflow.
    return 2 * math.fsum(weight / total * (value / 2) for weight, value in column)


def _percentile(values: Sequence[float], share: float) -> float:
    position = share * (len(values) - 1)
    below = math.floor(position)
    above = min(below + 1, len(values) - 1)
    part = position - below
    # below + part * (above - below) overflows for large numbers of different signs.
    between = (1 - part) * values[below] + part * values[above]
    return min(max(between, values[below]), values[above])
