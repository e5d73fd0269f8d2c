"""The update that a column of the result cannot do with: a fold leaves it out, and goes on without it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fma_core.aggregation.aggregators import Float64
from fma_core.aggregation.aggregators.aggregator import ArrayReader
from fma_core.engine.file_block import FileBlock
from fma_core.engine.job import Job
from fma_core.engine.segments import Cut


def farthest_out(job: Job, column: Cut, rows: Sequence[int], *, is_too_low: bool) -> int | None:
    """The row with the largest value in one column, or with the lowest one; None without rows.

    rows: those that the column of the result is made of.
    """
    if not rows:
        return None
    block = FileBlock(job, column, of_values=column.segment.role != "stepped")
    # What is sent beside the weights can break a state.
    blocks = [block, *map(block.payload, column.segment.payload_starts)]
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.array([[each.row(row)[0] for row in rows] for each in blocks])
        sizes = -values if is_too_low else np.abs(values)
    return _of_largest(np.where(np.isnan(sizes), np.inf, sizes).max(axis=0), rows)


def with_largest_value(arrays: ArrayReader, names: Sequence[str], rows: Sequence[int]) -> int | None:
    """The row with the largest value in any of these arrays; None without rows."""
    if not rows:
        return None
    # Not the largest product: a huge factor beside a factor of 0 breaks the products of the means.
    sizes = [max(float(np.abs(arrays.sent(row, name)).max(initial=0.0)) for name in names) for row in rows]
    return _of_largest(np.array(sizes), rows)


def _of_largest(sizes: Float64, rows: Sequence[int]) -> int:
    return rows[int(np.argmax(sizes))]
