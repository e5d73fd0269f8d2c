"""The goals of the engine, and whether this run reached them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cases import Size
from goal import Goal
from rows import MEBIBYTE, Row
from ways import FMA

MAX_MIB_BEYOND = 64


def goals_of(rows: Sequence[Row]) -> list[Goal]:
    """The goals of the cases that were run, for each way of fma that they speak of.

    A case is known by its number of updates, so that a quick run shows their form.
    """
    ours = [row for row in rows if row.kind == FMA]
    all_cores = max((row.threads for row in ours), default=1)
    return [
        *(goal for row in ours for goal in _times(row, all_cores)),
        *_same_bytes(ours),
        *_memory(ours),
    ]


def _times(row: Row, all_cores: int) -> Iterator[Goal]:
    size = Size.parse(row.size)
    case = f"{row.rule} {row.size}"
    if row.rule == "mean":
        if row.threads == 1:
            bound = 2.2 if row.kernels == "numpy" else 1.5
            yield Goal(f"{case}: time by the limit", row.way, row.times_limit, "≤", bound)
            if row.times_limit_without_digest is not None:
                less = row.times_limit_without_digest
                yield Goal(f"{case}: the same without its SHA-256", row.way, less, "≤", bound)
        elif row.faster_than_flower is not None:
            bound = 5 if size.num_updates >= 1000 else 2
            yield Goal(f"{case}: Flower's time by fma's", row.way, row.faster_than_flower, "≥", bound)
    elif row.rule in {"median", "trimmed_mean"} and row.threads == all_cores:
        if size.num_updates >= 100:
            faster = row.faster_than_numpy["np.median"]
            yield Goal(f"{case}: np.median's time by fma's", row.way, faster, "≥", 8)
        elif row.faster_than_flower is not None:
            yield Goal(f"{case}: Flower's time by fma's", row.way, row.faster_than_flower, "≥", 3)
    elif row.times_gram is not None and size.num_updates >= 100 and row.rule != "bulyan":
        yield Goal(f"{case}: time by one Gram product's", row.way, row.times_gram, "≤", 1.5)


def _same_bytes(ours: Sequence[Row]) -> Iterator[Goal]:
    means = {(row.way, Size.parse(row.size).num_updates): row for row in ours if row.rule == "mean"}
    for (way, num_updates), few in means.items():
        many = means.get((way, 1000))
        if num_updates == 10 and many is not None:
            what = f"mean {many.size}: time by that of {few.size}"
            yield Goal(what, way, many.seconds / few.seconds, "≤", 1.5)


def _memory(ours: Sequence[Row]) -> Iterator[Goal]:
    """The goals of memory: for each case, the way that held most."""
    most: dict[tuple[str, str], Row] = {}
    for row in ours:
        before = most.get((row.rule, row.size))
        if row.peak_mib is not None and (before is None or row.peak_mib > (before.peak_mib or 0)):
            most[row.rule, row.size] = row
    for (rule, text), row in most.items():
        # What the result is written from may be a whole model for the mean, and a block for what needs the matrix.
        model_mib = Size.parse(text).model_bytes / MEBIBYTE if rule == "mean" else 0
        bound = round(model_mib + MAX_MIB_BEYOND, 1)
        yield Goal(f"{rule} {text}: MiB beyond the base process", row.way, row.peak_mib or 0.0, "≤", bound)
