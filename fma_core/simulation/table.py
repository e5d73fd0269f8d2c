"""Text tables, and the rounds of a simulation as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fma_core.simulation.simulated_round import SimulatedRound

# More columns do not fit on a screen; `to_json` has them all.
MAX_METRICS = 4
DIGEST_LENGTH = 12
NOTHING = "–"  # a number that there is not


def as_table(rounds: Sequence[SimulatedRound]) -> str:
    """A line for each round: clients, virtual seconds, the digest's beginning, metrics as mean (lowest to highest)."""
    measured = _names([name for each in rounds for name in each.metrics])
    judged = _names([name for each in rounds for name in each.validation])
    heads = [
        "round",
        "asked",
        "answered",
        "late",
        "dropped",
        "refused",
        "seconds",
        "sha256",
        *measured,
        *judged,
    ]
    lines = [[*_counts(each), *_metrics(each, measured, judged)] for each in rounds]
    return text_table([heads, *lines], num_left=0)


def text_table(lines: Sequence[Sequence[str]], *, num_left: int = 1) -> str:
    """The cells in aligned columns; the first line is the head.

    num_left: so many columns are aligned to the left, all others, being numbers, to the right. A column that is empty
    below its head is left out.
    """
    columns = [
        column
        for column in zip(*lines, strict=True)
        if len(column) == 1 or any(cell not in ("", NOTHING) for cell in column[1:])
    ]
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < num_left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in zip(*columns, strict=True)
    )


def _counts(each: SimulatedRound) -> list[str]:
    parts = (each.chosen, each.answered, each.late, each.dropped, each.rejected)
    digest = each.sha256[:DIGEST_LENGTH] or each.outcome
    return [
        str(each.number),
        *(str(len(part)) for part in parts),
        f"{each.ended_s - each.opened_s:.1f}",
        digest,
    ]


def _metrics(each: SimulatedRound, measured: Sequence[str], judged: Sequence[str]) -> list[str]:
    cells = []
    for name in measured:
        stats = each.metrics.get(name)
        cells.append(
            "" if stats is None else f"{stats['mean']:.4f} ({stats['min']:.4f} to {stats['max']:.4f})"
        )
    return cells + [f"{each.validation[name]:.4f}" if name in each.validation else "" for name in judged]


def _names(names: Sequence[str]) -> list[str]:
    return sorted(set(names))[:MAX_METRICS]
