"""Cells as aligned text, the first column to the left, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "–"


def text_table(lines: Sequence[Sequence[str]]) -> str:
    """The first line is the head."""
    # A column without a number says nothing.
    kept = [column for column in zip(*lines, strict=True) if any(cell != NOTHING for cell in column[1:])]
    widths = [max(map(len, column)) for column in kept]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in zip(*kept, strict=True)
    )
