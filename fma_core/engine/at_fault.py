"""The update that a column of the result cannot do with: a fold leaves it out, and goes on without it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fma_core.aggregation.aggregators import Float64
from fma_core.aggregation.aggregators.aggregator import ArrayReader
from fma_core.arrays.casting import cast
from fma_core.arrays.codecs.values import first_bad_value
from fma_core.engine.file_block import FileBlock
from fma_core.engine.job import Job
from fma_core.engine.segments import Cut


def farthest_out(job: Job, column: Cut, rows: Sequence[int], *, is_too_low: bool) -> int | None:
    """The row with the largest value in one column, or with the lowest one; None without rows.

    rows: those that the column of the result is made of.
    Where the rule lengthens all steps by a number of one update, and no step alone is too long, it is the row with the
    largest share of that number.
    """
    if not rows:
        return None
    block = FileBlock(job, column, of_values=column.segment.role != "stepped")
    # What is sent beside the weights can break a state.
    blocks = [block, *map(block.payload, column.segment.payload_starts)]
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.array([[each.row(row)[0] for row in rows] for each in blocks])
        sizes = -values if is_too_low else np.abs(values)
        metric = job.strategy.aggregator.lengthening_metric
        if metric and column.segment.role == "stepped" and _is_possible(job, column, values):
            sizes = np.array(
                [[job.updates[row].num_examples * job.updates[row].metrics[metric] for row in rows]]
            )
    return _of_largest(np.where(np.isnan(sizes), np.inf, sizes).max(axis=0), rows)


def _is_possible(job: Job, column: Cut, steps: Float64) -> bool:
    """Whether the model could take each of these steps alone, and so every mean of them."""
    segment = column.segment
    after = cast(FileBlock(job, column).start() + steps.ravel(), segment.dtype)
    return first_bad_value(after, segment.dtype) is None and not (
        segment.holds_variances and (after < 0).any()
    )


def with_largest_value(arrays: ArrayReader, names: Sequence[str], rows: Sequence[int]) -> int | None:
    """The row with the largest value in any of these arrays; None without rows."""
    if not rows:
        return None
    # Not the largest product: a huge factor beside a factor of 0 breaks the products of the means.
    sizes = [max(float(np.abs(arrays.sent(row, name)).max(initial=0.0)) for name in names) for row in rows]
    return _of_largest(np.array(sizes), rows)


def _of_largest(sizes: Float64, rows: Sequence[int]) -> int:
    return rows[int(np.argmax(sizes))]
