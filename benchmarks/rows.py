"""The measurements of one way: its times, and how they compare with those of the other ways of the same case."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cases import Size
from measured_process import Run
from ways import DIGEST, FLOWER, FLOWER_RECORDS, FMA, GRAM, IN_MEMORY, LIMIT, Way

from fma_core.simulation.table import NOTHING, text_table

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Row:
    """times_…: this way's time by that of the other one; faster_than_…: the other one's by this way's.

    times_limit compares with the read by as many threads; times_limit_without_digest, of fma on one thread, does so
    after the time of the result's SHA-256 is taken off. faster_than_numpy names the calls that it compares with, and
    faster_than_flower compares with the faster of Flower's interfaces.
    """

    rule: str
    size: str
    way: str
    kind: str
    kernels: str
    threads: int
    runs: int
    seconds: float
    median_seconds: float
    cpu_seconds: float
    gb_per_s: float
    times_limit: float
    times_limit_without_digest: float | None
    times_gram: float | None
    faster_than_numpy: dict[str, float]
    faster_than_flower: float | None
    peak_mib: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def rows_of(rule: str, size: Size, runs: Mapping[Way, Sequence[Run]]) -> list[Row]:
    best = {way: min(run.seconds for run in found) for way, found in runs.items()}
    limits = {way.threads: seconds for way, seconds in best.items() if way.kind == LIMIT}
    numpy = {way.kind: seconds for way, seconds in best.items() if way.kind in IN_MEMORY.get(rule, ())}
    digest = min(seconds for way, seconds in best.items() if way.kind == DIGEST)
    gram = min((seconds for way, seconds in best.items() if way.kind == GRAM), default=None)
    flower = min(
        (seconds for way, seconds in best.items() if way.kind in {FLOWER, FLOWER_RECORDS}), default=None
    )
    return [
        Row(
            rule=rule,
            size=str(size),
            way=str(way),
            kind=way.kind,
            kernels=way.kernels,
            threads=way.threads,
            runs=len(runs[way]),
            seconds=seconds,
            median_seconds=statistics.median(run.seconds for run in runs[way]),
            cpu_seconds=min(run.cpu_seconds for run in runs[way]),
            gb_per_s=(size.model_bytes if way.kind == DIGEST else size.update_bytes) / seconds / 1e9,
            times_limit=seconds / limits[way.threads],
            times_limit_without_digest=(
                (seconds - digest) / limits[1] if way.kind == FMA and way.threads == 1 else None
            ),
            times_gram=None if gram is None else seconds / gram,
            faster_than_numpy={name: other / seconds for name, other in numpy.items()},
            faster_than_flower=None if flower is None else flower / seconds,
            peak_mib=_peak_mib(runs[way]),
        )
        for way, seconds in best.items()
    ]


def table(rows: Sequence[Row]) -> str:
    """Rows of one case."""
    names = sorted({name for row in rows for name in row.faster_than_numpy})
    head = [
        "",
        "ms",
        "median",
        "cpu",
        "GB/s",
        "× limit",
        "less sha256",
        "× Gram",
        *(f"{name} ÷" for name in names),
    ]
    lines = [[*head, "Flower ÷", "MiB", "runs"]]
    lines.extend(
        [
            row.way,
            f"{row.seconds * 1e3:.1f}",
            f"{row.median_seconds * 1e3:.1f}",
            f"{row.cpu_seconds * 1e3:.1f}",
            f"{row.gb_per_s:.2f}",
            f"{row.times_limit:.2f}",
            _ratio(row.times_limit_without_digest),
            _ratio(row.times_gram),
            *(_ratio(row.faster_than_numpy.get(name)) for name in names),
            _ratio(row.faster_than_flower),
            NOTHING if row.peak_mib is None else f"{row.peak_mib:.1f}",
            str(row.runs),
        ]
        for row in rows
    )
    return text_table(lines)


def _ratio(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _peak_mib(runs: Sequence[Run]) -> float | None:
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    return max(peaks) / MEBIBYTE if peaks else None
