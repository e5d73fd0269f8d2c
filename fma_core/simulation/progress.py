"""The progress of a simulation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TextIO

WIDTH = 24


@dataclass(frozen=True)
class Progress:
    """The state of a simulation at one moment.

    num_trained of num_asked: the answers of the open round that are known so far, dropouts included.
    metrics: the weighted means of the last published round.
    """

    round_number: int
    num_rounds: int
    num_trained: int
    num_asked: int
    is_over: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The share of all rounds that is done: 0 … 1."""
        done = 1.0 if self.is_over else self.num_trained / max(1, self.num_asked)
        return min(1.0, (self.round_number - 1 + done) / self.num_rounds)


Watcher = Callable[[Progress], None]


def progress_bar(file: TextIO | None = None) -> Watcher:
    """A watcher that draws a bar on one line of a terminal, or prints a line for each round without a terminal."""
    out = sys.stderr if file is None else file
    is_terminal = out.isatty()
    drawn = ""

    def show(progress: Progress) -> None:
        nonlocal drawn
        if not is_terminal:
            if progress.is_over:
                print(_line(progress), file=out, flush=True)
            return
        filled = int(WIDTH * progress.share)
        line = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {_line(progress)}"
        if line != drawn:
            print(f"\r\x1b[K{line:.118}", end="\n" if progress.share == 1 else "", file=out, flush=True)
            drawn = line

    return show


def _line(progress: Progress) -> str:
    means = "".join(f"  {name} {value:.4g}" for name, value in list(progress.metrics.items())[:3])
    return (
        f"round {progress.round_number}/{progress.num_rounds}"
        f"  clients {progress.num_trained}/{progress.num_asked}{means}"
    )
