"""Fold the updates of a round into the next model, in memory that does not grow with their number."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fma_core import kernels
from fma_core.aggregation.aggregators import Float64
from fma_core.aggregation.aggregators.aggregator import Aggregator, Rows
from fma_core.aggregation.aggregators.mean import lowest_terms
from fma_core.aggregation.strategy import NUM_STEPS, Strategy
from fma_core.arrays.codecs.header import canonical_header
from fma_core.arrays.codecs.receive import Received, sha256_of_file
from fma_core.arrays.codecs.write_all import write_all
from fma_core.arrays.spec import Spec
from fma_core.engine import widths
from fma_core.engine.combine import Combine
from fma_core.engine.executors import Executor, Threads
from fma_core.engine.job import FileOutput, Job
from fma_core.engine.rows import FileRows, MixedRows
from fma_core.engine.uses import UpdateUse, uses_of
from fma_core.engine.value_weights import ValueWeights
from fma_core.engine.weight_files import ModelFile, UpdateFile
from fma_core.errors import NegativeVariance, NonFiniteResult, NoUpdates

DEFAULT_EXECUTOR = Threads()
MOST_LEFT_OUT = 16
"""So many updates are left out at most, each for the price of a fold; and never more than half of a round."""


@dataclass(frozen=True)
class Folded:
    """The files that a fold wrote: the next model, and the state for the next round, if the strategy has one.

    uses: the use that was made of each update, in their order.
    """

    weights: Received
    state: Received | None
    uses: tuple[UpdateUse, ...]


# Raise it with every change of the arithmetic, of a rule's too, after which the same updates may give other bits.
# Rounds name theirs, so that `fma verify` knows whose bits it compares.
ENGINE_VERSION = 4


def fold(
    updates: Sequence[UpdateFile],
    *,
    spec: Spec,
    strategy: Strategy,
    out: Path,
    start: ModelFile | None = None,
    state: ModelFile | None = None,
    state_out: Path | None = None,
    num_clients: int | None = None,
    round_number: int = 1,
    executor: Executor = DEFAULT_EXECUTOR,
    block_columns: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Folded:
    """Aggregate update files into the file `out` by a strategy; the same input gives the same bytes.

    updates: the rows, in the order in which they are added (by update id, never by arrival).
    spec: the arrays of the model; those of an update are `strategy.update_spec(spec)`.
    start: the model that the round starts from. It may be None unless strategy.needs_start.
    state: the file `state_out` of the last round; None for a fresh state.
    out, state_out: existing files; they are overwritten, and invalid after an error.
    num_clients: the number of clients of the model; None for as many as there are updates.
    executor: runs the work. The result does not depend on it.
    block_columns: columns at a time, or fewer where a rule needs the matrix; the engine's own number where it needs the
        matrix of mixed rows. The result does not depend on it, either.
    progress: called in this thread with the share of the work that is done; it never falls, and ends with 1.

    An update that makes the result overflow, or a variance of it negative, is left out, and the others are folded
    without it: the one that is farthest out where the fault is met, and more of them if need be, at most half of them
    and MOST_LEFT_OUT. Its use is `rejected`, by the code of the error. The error is raised, and no update is blamed,
    where leaving out does not help, or where the result is impossible without the change of any update.
    Raises NoUpdates, UnreadableUpdate, UnreadableModel, NonFiniteResult or NegativeVariance.
    """
    report = _Progress(progress)

    def attempt(kept: Sequence[int]) -> Folded:
        return _fold_once(
            [updates[index] for index in kept],
            spec=spec,
            strategy=strategy,
            out=out,
            start=start,
            state=state,
            state_out=state_out,
            num_clients=len(updates) if num_clients is None else num_clients,
            round_number=round_number,
            executor=executor,
            block_columns=block_columns,
            report=report,
        )

    folded, left_out = _fold_what_can_be(attempt, updates, strategy)
    report.done()
    if not left_out:
        return folded
    uses = iter(folded.uses)
    return replace(folded, uses=tuple(left_out.get(index) or next(uses) for index in range(len(updates))))


def _fold_what_can_be(
    attempt: Callable[[Sequence[int]], Folded], updates: Sequence[UpdateFile], strategy: Strategy
) -> tuple[Folded, dict[int, UpdateUse]]:
    """Fold all updates but those that make the result impossible; the uses of these, by their places."""
    kept, left_out = list(range(len(updates))), dict[int, UpdateUse]()
    most = min(MOST_LEFT_OUT, len(updates) - strategy.min_updates)
    first: NonFiniteResult | NegativeVariance | None = None
    while True:
        try:
            folded = attempt(kept)
            break
        except (NonFiniteResult, NegativeVariance) as error:
            first = first or error
            # Without a row it is the rule's or the model's own: no array shows who is at fault.
            row = error.facts.get("row")
            if row is None or len(left_out) == most or _is_required(updates[kept[row]], strategy):
                tried = f"leaving out {len(left_out)} of {len(updates)} updates does not help"
                raise _explained(first, updates, tried if left_out else "") from None
            breaks = kept.pop(row)
            left_out[breaks] = UpdateUse("rejected", error.code, weight=0.0)
    # The last one made the difference; those before it may only have been large.
    is_written, num_needed = True, 1
    for index in list(left_out)[:-1]:
        try:
            folded = attempt(sorted([*kept, index]))
        except (NonFiniteResult, NegativeVariance):
            is_written = False
            num_needed += 1
            if first is not None and num_needed > len(updates) // 2:
                tried = f"leaving out half of {len(updates)} updates does not help"
                raise _explained(first, updates, tried) from None
        else:
            is_written = True
            kept = sorted([*kept, index])
            del left_out[index]
    return folded if is_written else attempt(kept), left_out


def _is_required(update: UpdateFile, strategy: Strategy) -> bool:
    return update.client in strategy.aggregator.required_clients


def _explained(
    error: NonFiniteResult | NegativeVariance, updates: Sequence[UpdateFile], tried: str
) -> Exception:
    """The error of the whole round; it names an update only where no other could be at fault."""
    facts = {name: fact for name, fact in error.facts.items() if name not in ("column", "row")}
    hint = tried
    if not tried and "row" in error.facts:
        update = updates[error.facts["row"]]
        of_client = f" of client {update.client}" if update.client else ""
        hint = f"update {update.label}{of_client} is farthest out there"
    elif not tried and "column" in error.facts:
        hint = "so it would be without any update"
    return type(error)(f"{error.message}; {hint}" if hint else error.message, **facts)


def _fold_once(
    updates: Sequence[UpdateFile],
    *,
    spec: Spec,
    strategy: Strategy,
    out: Path,
    start: ModelFile | None,
    state: ModelFile | None,
    state_out: Path | None,
    num_clients: int,
    round_number: int,
    executor: Executor,
    block_columns: int | None,
    report: _Progress,
) -> Folded:
    """Fold all of these updates."""
    if len(updates) < strategy.min_updates:
        raise NoUpdates(
            f"this strategy needs at least {strategy.min_updates} updates, found {len(updates)}",
            found=len(updates),
            expected=strategy.min_updates,
        )
    if start is None and strategy.needs_start:
        raise ValueError("this strategy needs a model to start from")
    job = Job(
        updates,
        spec=spec,
        strategy=strategy,
        start=start,
        state=state,
        out=FileOutput(out),
        state_out=None if state_out is None else FileOutput(state_out),
        num_clients=num_clients,
        round_number=round_number,
    )
    report.begin(sum(segment.num_columns for segment in job.segments))
    with kernels.one_blas_thread(), job:
        num_steps = _write_headers(job, out, state_out)
        sent = FileRows(job, executor, progress=report.measured)
        rows, matrices, mixes = _after_stages(sent, strategy)
        matrix = mixes[-1] if mixes else None
        aggregator = strategy.aggregator
        width = block_columns or widths.STREAM_COLUMNS
        if aggregator.needs_matrix:
            # Not narrower than MIN_MATRIX_COLUMNS: for a few columns BLAS uses other algorithms, whose bits may differ.
            # A block that a stage mixes is in memory three times, two of them in float64.
            values = widths.MATRIX_VALUES if matrix is None else widths.MATRIX_VALUES // 2
            if matrix is not None:
                width = widths.STREAM_COLUMNS  # the last bits of mixed rows depend on it
            most = widths.matrix_columns(len(updates), values=values)
            width = min(max(width, widths.MIN_MATRIX_COLUMNS), most)
        decision = aggregator.measure(rows)
        uses = uses_of(aggregator, decision, sent, strategy.row_stages, matrices, mixes)
        counted = tuple(row for row, use in enumerate(uses) if use.counts)
        if not counted and not job.has_start:
            raise NoUpdates("every update was rejected, and there is no model to keep", found=0, expected=1)
        work = Combine(
            decision=decision,
            matrix=matrix,
            counted=counted,
            values=_value_weights(aggregator, sent, counted),
            num_steps=num_steps,
            max_columns=width,
        )
        for num_columns in executor.run(work, job, len(job.cuts(width, of_rows_only=False))):
            report.combined(num_columns)
    return Folded(_received(out, spec), _received_state(job, state_out), uses)


def _after_stages(rows: Rows, strategy: Strategy) -> tuple[Rows, list[Float64], list[Float64]]:
    """The rows that the rule sees; the matrix of each stage; and each that makes its rows of those of the files."""
    matrices: list[Float64] = []
    mixes: list[Float64] = []
    for stage in strategy.row_stages:
        row_map = stage.map_rows(rows)
        rows = MixedRows(rows, row_map)
        matrices.append(row_map.matrix)
        mixes.append(np.matmul(row_map.matrix, mixes[-1]) if mixes else row_map.matrix)
    return rows, matrices, mixes


def _value_weights(aggregator: Aggregator[Any], sent: Rows, counted: Sequence[int]) -> ValueWeights | None:
    """The weights of averaged arrays, 0 for an update that was rejected; None for their median, which has no weights.

    The median is of all updates: a rule may keep fewer than twice as many as there are attackers, who look harmless in
    the arrays that it sees. Among all they are the smaller part.
    """
    if aggregator.integers == "median" or not counted:
        return None
    weights = [0] * sent.num_rows
    given = aggregator.integer_weights(sent.num_examples)
    for row in counted:
        weights[row] = given[row]
    return ValueWeights.of(lowest_terms(weights), aggregator.discounts(sent))


def _write_headers(job: Job, out: Path, state_out: Path | None) -> int:
    """Write the headers of the output files, and return the number of steps of the state, this one included."""
    _begin(out, job.layouts.spec)
    state_spec = job.layouts.state_spec
    if state_spec is None:
        return 1
    if state_out is None:
        raise ValueError("this strategy keeps a state; it needs a state_out")
    _begin(state_out, state_spec)
    num_steps = np.ones((), np.int64)
    offset = job.layouts.state_starts[NUM_STEPS]
    if job.has_state:
        job.state_file.read_into(0, num_steps.reshape(1).view(np.uint8).data, offset)
        num_steps += 1
    job.written_state.write(num_steps.tobytes(), offset)
    return int(num_steps)


def _begin(path: Path, spec: Spec) -> None:
    header = canonical_header(spec)
    with open(path, "r+b") as file:
        file.truncate(len(header) + spec.data_size_bytes)
        write_all(file.fileno(), header, 0)


def _received(path: Path, spec: Spec) -> Received:
    fd = os.open(path, os.O_RDONLY)
    try:
        return Received(spec, sha256_of_file(fd), os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _received_state(job: Job, state_out: Path | None) -> Received | None:
    spec = job.layouts.state_spec
    return None if spec is None or state_out is None else _received(state_out, spec)


class _Progress:
    """Report shares of the work: `measure` counts up to one half if it reads anything, `combine` the rest."""

    def __init__(self, tell: Callable[[float], None] | None) -> None:
        self._tell = tell
        self._told = 0.0
        self.begin(1)

    def begin(self, num_columns: int) -> None:
        """The work begins, perhaps once more: the share stays where it is meanwhile."""
        self._num_columns = num_columns
        self._measured = 0.0
        self._combined = 0

    def measured(self, num_columns: int) -> None:
        self._measured += num_columns / (2 * self._num_columns)
        # A rule may read the rows any number of times.
        self._report(min(self._measured, 0.5))

    def combined(self, num_columns: int) -> None:
        self._combined += num_columns
        start = min(self._measured, 0.5)
        # The last 1 % is the hash of the result.
        self._report(start + (0.99 - start) * self._combined / self._num_columns)

    def done(self) -> None:
        self._report(1.0)

    def _report(self, share: float) -> None:
        self._told = max(self._told, share)
        if self._tell is not None:
            self._tell(self._told)
