"""The rounds of a simulation as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fma_core.simulation.result import SimulatedRound

# More columns do not fit on a screen; `to_json` has them all.
MAX_METRICS = 4
DIGEST_LENGTH = 12


def as_table(rounds: Sequence[SimulatedRound]) -> str:
    """A table of numbers of clients, virtual seconds, the start of the digest, and metrics as mean (min to max)."""
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
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in [heads, *lines]
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
        known = each.metrics.get(name)
        cells.append(
            "" if known is None else f"{known['mean']:.4f} ({known['min']:.4f} to {known['max']:.4f})"
        )
    return cells + [f"{each.validation[name]:.4f}" if name in each.validation else "" for name in judged]


def _names(metrics: Sequence[str]) -> list[str]:
    return sorted(set(metrics))[:MAX_METRICS]
