"""The second step of a fold: block by block, from the updates to the next model and its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fma_core import kernels
from fma_core.aggregation.aggregators import Block, Float64
from fma_core.arrays.casting import cast
from fma_core.arrays.codecs.values import first_bad_value, view_of
from fma_core.engine import widths
from fma_core.engine.array_reader import FileArrays
from fma_core.engine.at_fault import farthest_out, with_largest_value
from fma_core.engine.file_block import FileBlock, MixedBlock, StillBlock, read_states
from fma_core.engine.integers import integer_mean, integer_median
from fma_core.engine.job import Job
from fma_core.engine.segments import STATE_DTYPE, Cut
from fma_core.engine.value_weights import ValueWeights
from fma_core.errors import NegativeVariance, NonFiniteResult


@dataclass(frozen=True, eq=False)
class Combine:
    """The work of `combine`: it writes the item's columns of the result and of the state.

    matrix: the row map of all stages together; None without stages.
    counted: the updates that neither a stage nor the rule rejected.
    values: the weights of averaged arrays; None for their median.
    num_steps: the number of steps that the state has seen, this one included.
    """

    decision: Any
    matrix: Float64 | None
    counted: tuple[int, ...]
    values: ValueWeights | None
    num_steps: int
    max_columns: int

    def columns_of(self, job: Job, item: int) -> Sequence[Cut]:
        return [job.cuts(self.max_columns, of_rows_only=False)[item]]

    def __call__(self, job: Job, item: int) -> int:
        [part] = self.columns_of(job, item)
        try:
            result, states = self._result(job, part)
        except (NonFiniteResult, NegativeVariance) as error:
            row = self._at_fault(job, part, error)
            if row is not None:
                error.facts["row"] = row
            raise
        segment = part.segment
        job.out.write(result.view(np.uint8).data, segment.model_start + part.first * segment.item_size)
        for name, state in states.items():
            job.written_state.write(
                state.view(np.uint8).data, segment.state_starts[name] + part.first * state.itemsize
            )
        return part.num_columns

    def _result(self, job: Job, part: Cut) -> tuple[NDArray[Any], Mapping[str, Float64]]:
        """The columns of the next model, in its dtype, and of the next state. Nothing is written."""
        segment = part.segment
        result: NDArray[Any]
        states: Mapping[str, Float64] = {}
        if segment.role == "kept" or (segment.role in {"averaged", "newest"} and not self.counted):
            result = FileBlock(job, part).start()
        elif segment.role == "computed":
            result = cast(self._computed(job, part), segment.dtype)
        elif segment.role == "collected":
            result = self._collected(job, part)
        elif segment.role == "newest":
            result = self._newest(job, part)
        elif segment.role == "stepped":
            states = read_states(job, part)
            result = self._stepped(job, part, self._rows(job, part, states), states)
        elif segment.is_float:
            result = self._averaged(job, part)
        else:
            result = self._integers(job, part)
        _require_possible(result, states, part)
        return result, states

    def _published(self, job: Job, part: Cut) -> NDArray[Any]:
        return self._result(job, part)[0]

    def _computed(self, job: Job, part: Cut) -> Float64:
        array = part.segment.arrays[0]
        num_rows = array.shape[0] if array.shape else 1
        unit = part.segment.num_columns // num_rows
        first, last = part.first // unit, part.last // unit
        # What is published is computed here once more: another thread or machine may not have written it yet.
        arrays = FileArrays(job, published=partial(self._published, job))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            values = job.strategy.aggregator.compute(
                array.name, job.layouts.computed[array.name], first, last, arrays
            )
        return np.ascontiguousarray(values, dtype=np.float64).reshape(-1)

    def _rows(self, job: Job, part: Cut, states: dict[str, Float64]) -> Block:
        files = FileBlock(job, part, states=_states_of("aggregator", states))
        return files if self.matrix is None else MixedBlock(files, self.matrix)

    def _stepped(self, job: Job, part: Cut, rows: Block, states: dict[str, Float64]) -> NDArray[Any]:
        """The model after one step from these rows; the states are changed in place."""
        # Overflows are detected later; errstate holds for one thread only.
        with np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
            combined = _apart(self._combined(job, rows), states)
            optimiser = job.strategy.optimiser
            if optimiser is not None:
                combined = optimiser.step(combined, _states_of("optimiser", states), self.num_steps)
                combined = _apart(combined, states)
            if not job.rows_are_weights:
                start = FileBlock(job, part).start()
                combined = np.add(combined, start, out=combined, dtype=np.float64)
            return cast(combined, part.segment.dtype)

    def _is_possible_without_updates(self, job: Job, column: Cut) -> bool:
        """Whether a column could be published if no update changed anything; not, when a state or rate has diverged."""
        if column.segment.role != "stepped" or job.rows_are_weights:
            return True
        states = read_states(job, column)
        num_rows = len(job.updates) if self.matrix is None else len(self.matrix)
        rows = StillBlock(num_rows, column, _states_of("aggregator", states))
        try:
            _require_possible(self._stepped(job, column, rows, states), states, column)
        except (NonFiniteResult, NegativeVariance):
            return False
        return True

    def _combined(self, job: Job, block: Block) -> Float64:
        aggregator = job.strategy.aggregator
        combined = aggregator.combine(block, self.decision)
        if combined.shape != (block.num_columns,):
            raise ValueError(
                f"{type(aggregator).__name__}.combine must give {(block.num_columns,)} values, "
                f"found {combined.shape}"
            )
        return np.ascontiguousarray(combined, dtype=np.float64)

    def _averaged(self, job: Job, part: Cut) -> NDArray[Any]:
        """The mean of the values that were sent, or their median under a rule that trusts no single update."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            if self.values is not None:
                weights = self.values.floats
                values = FileBlock(job, part, of_values=True).weighted_sum(weights)
                np.divide(values, np.add.reduce(weights), out=values)
            else:
                blocks = (FileBlock(job, narrow, of_values=True) for narrow in _narrow(job, part))
                values = np.concatenate([_median(block) for block in blocks])
            return cast(values, part.segment.dtype)

    def _newest(self, job: Job, part: Cut) -> NDArray[Any]:
        index = self._newest_row
        block = FileBlock(job, part, of_values=True)
        if not part.segment.is_float:
            return block.raw(index)
        return cast(block.row(index), part.segment.dtype)

    def _collected(self, job: Job, part: Cut) -> NDArray[Any]:
        """Rows of the array: first what was sent in this round, the newest first, then what was there before."""
        segment = part.segment
        new = self.counted[::-1]
        size_bytes = segment.row_columns * segment.item_size
        first, last = part.first // segment.row_columns, part.last // segment.row_columns
        rows = np.empty((last - first, size_bytes), np.uint8)
        num_new = max(0, min(last, len(new)) - first)
        for row, update in zip(rows, new[first:last], strict=False):
            job.update_files.read_into(update, row.data, segment.update_start)
        if num_new < len(rows):
            # At once: a collection may have millions of rows that are a number each.
            offset = segment.model_start + (first + num_new - len(new)) * size_bytes
            job.start_file.read_into(0, rows[num_new:].reshape(-1).data, offset)
        return view_of(rows.reshape(-1).data, segment.dtype)

    def _integers(self, job: Job, part: Cut) -> NDArray[Any]:
        dtype = part.segment.dtype
        if self.values is not None:
            raw = FileBlock(job, part).raw
            return integer_mean(raw, self.values.exact, dtype=dtype, num_columns=part.num_columns)
        medians = []
        for narrow in _narrow(job, part):
            block = FileBlock(job, narrow)
            matrix = np.array([block.raw(index).copy() for index in range(block.num_rows)])
            medians.append(integer_median(matrix, dtype=dtype))
        return np.concatenate(medians)

    @property
    def _newest_row(self) -> int:
        # An update without a weight does not count for the mean, either.
        return self.counted[-1] if self.values is None else int(np.flatnonzero(self.values.floats)[-1])

    def _at_fault(self, job: Job, part: Cut, error: NonFiniteResult | NegativeVariance) -> int | None:
        """The row that is farthest out in the column of the error; None where no row has to do with it."""
        segment = part.segment
        if segment.role == "computed":
            # The column of the error may be that of one of the sources.
            arrays = FileArrays(job, published=partial(self._published, job))
            return with_largest_value(arrays, job.layouts.computed[segment.arrays[0].name], self.counted)
        column = error.facts.get("column")
        if column is None:  # a rule's own error
            return None
        at = Cut(segment, column, column + 1)
        if not self._is_possible_without_updates(job, at):
            return None
        rows: Sequence[int] = self.counted
        if segment.role == "collected":
            place = column // segment.row_columns
            return next(iter(rows[::-1][place : place + 1]), None)
        if segment.role == "newest":
            rows = rows and (self._newest_row,)
        elif segment.role == "averaged" and self.values is None:
            rows = rows and range(len(job.updates))
        return farthest_out(job, at, rows, is_too_low=isinstance(error, NegativeVariance))


def _narrow(job: Job, part: Cut) -> Iterator[Cut]:
    """The same columns in blocks that have all their rows in memory at once."""
    width = widths.matrix_columns(len(job.updates))
    for first in range(part.first, part.last, width):
        yield Cut(part.segment, first, min(first + width, part.last))


def _median(block: Block) -> Float64:
    median: Float64 = kernels.median_of_ordered(
        block.order_statistics(kernels.middle_ranks(block.num_rows))
    ).astype(np.float64)
    return median


def _states_of(part: str, states: dict[str, Float64]) -> dict[str, Float64]:
    prefix = f"{part}."
    return {name.removeprefix(prefix): state for name, state in states.items() if name.startswith(prefix)}


def _apart(values: Float64, states: dict[str, Float64]) -> Float64:
    # A part may return its own state (momentum is the step), and the next step changes the answer in place.
    return values.copy() if any(np.may_share_memory(values, state) for state in states.values()) else values


def _require_possible(result: NDArray[Any], states: Mapping[str, Float64], part: Cut) -> None:
    """Raise the error of the first column that cannot be published; it is the same in blocks of any width."""
    segment = part.segment
    is_computed = segment.is_float and segment.role not in {"kept", "collected"}
    bad = {"": first_bad_value(result, segment.dtype) if is_computed else None}
    bad |= {name: first_bad_value(state, STATE_DTYPE) for name, state in states.items()}
    below = np.flatnonzero(result < 0) if segment.holds_variances else ()
    column = min([*(place for place in bad.values() if place is not None), *below[:1]], default=None)
    if column is None:
        return
    array = segment.array_at(part.first + column)
    facts = {"array": array, "column": part.first + column}
    name = next((name for name, place in bad.items() if place == column), None)
    if name is None:
        found = float(result[column])
        raise NegativeVariance(
            f"array {array!r} of the result must hold variances of 0 or more; found {found!r:.30}", **facts
        )
    what, dtype = (f"the state {name!r}", STATE_DTYPE) if name else ("the result", segment.dtype)
    raise NonFiniteResult(
        f"array {array!r} of {what} must be finite; it overflowed {dtype} or is not a number", **facts
    )
