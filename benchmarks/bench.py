"""The input and the result of every work of benchmarks/edge.py."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cpu_time import children_of
from goal import Goal

from fma_core.simulation.table import NOTHING, text_table

FMA = "fma"


@dataclass(frozen=True)
class Row:
    """numbers: by the names of their columns, with the unit; None where a way has no such number."""

    work: str
    way: str
    numbers: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """One table and the goals that it answers for. notes: what was left out, and why."""

    title: str
    rows: Sequence[Row] = ()
    goals: Sequence[Goal] = ()
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for row in self.rows for name in row.numbers))
        lines = [["", *names]]
        lines += [[row.way, *(_cell(row.numbers.get(name)) for name in names)] for row in self.rows]
        table = text_table(lines) if self.rows else ""
        return "\n".join(part for part in (self.title, table, *self.notes) if part)


@dataclass(frozen=True)
class Database:
    """url: "" for SQLite, each server then having its own file. pids: of the database server, none for SQLite."""

    name: str
    url: str = ""
    postmaster: int | None = None

    def pids(self) -> set[int]:
        return set() if self.postmaster is None else {self.postmaster, *children_of(self.postmaster)}


@dataclass(frozen=True)
class Bench:
    """folder: for all files of the run. quick: to see that it runs. original, flower: interpreters that have them."""

    folder: Path
    quick: bool = False
    repeats: int = 3
    original: Path | None = None
    flower: Path | None = None
    made: list[int] = field(default_factory=list)

    def few(self, many: int, quick: int) -> int:
        return quick if self.quick else many

    @contextmanager
    def new_folder(self, name: str) -> Iterator[Path]:
        """An empty folder, gone after the block."""
        self.made.append(1)
        folder = self.folder / f"{len(self.made)}-{name}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class NotInstalled(Exception):
    """A server that something is compared with is not on this machine."""


def _cell(value: float | None) -> str:
    if value is None:
        return NOTHING
    if value == int(value) or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"
