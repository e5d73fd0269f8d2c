"""Facts about whole rows, measured over all columns, before or after the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from fma_core.aggregation.aggregators import Block, Float64
from fma_core.aggregation.aggregators.aggregator import Rows
from fma_core.aggregation.aggregators.distances import squared_distances
from fma_core.aggregation.aggregators.ties import best_rows, contents_of
from fma_core.aggregation.stages import RowMap
from fma_core.engine import widths
from fma_core.engine.executors import Executor
from fma_core.engine.file_block import FileBlock, MixedBlock
from fma_core.engine.job import Job
from fma_core.engine.segments import Cut

# Where the rows lie nearer to each other than this share of their length, in squares, their distances follow from the
# differences of nearly equal numbers. Above it they keep ten digits.
CANCELLING = 2.0**-20


class FileRows:
    """All rows of the floating-point segments, as they are in the files."""

    def __init__(self, job: Job, executor: Executor, *, progress: Callable[[int], None]) -> None:
        self._job = job
        self._executor = executor
        self._progress = progress
        self._norms: Float64 | None = None
        self._gram: Float64 | None = None

    @property
    def num_rows(self) -> int:
        return len(self._job.updates)

    @property
    def num_columns(self) -> int:
        return sum(segment.num_columns for segment in self._job.segments if segment.is_row)

    @property
    def num_examples(self) -> tuple[int, ...]:
        return tuple(update.num_examples for update in self._job.updates)

    @property
    def staleness(self) -> tuple[int, ...]:
        return tuple(update.staleness for update in self._job.updates)

    @property
    def discounts(self) -> Float64 | None:
        staleness = self._job.strategy.staleness
        return None if staleness is None else np.array([staleness.discount(age) for age in self.staleness])

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(update.client for update in self._job.updates)

    @property
    def num_clients(self) -> int:
        return self._job.num_clients

    @property
    def round_number(self) -> int:
        return self._job.round_number

    def metric(self, name: str) -> Float64:
        return np.array([float(update.metrics[name]) for update in self._job.updates])

    def squared_norms(self) -> Float64:
        if self._norms is not None:
            return self._norms.copy()
        norms = self._sum(_squared_norms, max_columns=widths.STREAM_COLUMNS)
        self._norms = np.zeros(self.num_rows) if norms is None else norms
        return self._norms.copy()

    @property
    def are_weights(self) -> bool:
        """Whether a row is the weights that were sent, and not the change."""
        return self._job.rows_are_weights

    @property
    def known_gram(self) -> Float64 | None:
        """`gram`, if it was asked for."""
        return self._gram

    @property
    def known_squared_norms(self) -> Float64 | None:
        """`squared_norms`, if they or `gram` were asked for."""
        return self._norms

    def gram(self) -> Float64:
        if self._gram is None:
            gram = self._sum_of_products(around=None)
            self._norms = np.diagonal(gram).copy()
            strategy = self._job.strategy
            if strategy.measures_distances and strategy.is_translation_equivariant:
                centre = self._centre_of(gram)
                if centre is not None:
                    gram = self._sum_of_products(around=centre)
            # For 1000 rows it takes 8 MB: all callers share one, which is read-only.
            gram.flags.writeable = False
            self._gram = gram
        return self._gram

    def _sum_of_products(self, *, around: int | None) -> Float64:
        width = widths.matrix_columns(self.num_rows, values=widths.GRAM_VALUES)
        gram = self._sum(partial(_gram, around=around), max_columns=width)
        return np.zeros((self.num_rows, self.num_rows)) if gram is None else gram

    def _centre_of(self, gram: Float64) -> int | None:
        """The row to measure the others from, where their distances would cancel; None where they do not.

        The one whose nearest majority lies within the smallest distance: neither the mean nor a row chosen blindly,
        which attackers could move so far away that all other distances cancel. A majority of the examples, where the
        rule bears attackers by these: there most rows may be theirs.
        """
        if self.num_rows == 1:
            return None
        votes = np.ones(self.num_rows)
        if self._job.strategy.aggregator.bears_by_examples and any(self.num_examples):
            votes = np.array(self.num_examples, np.float64)
        distances = squared_distances(gram)
        nearest = np.argsort(distances, axis=1, kind="stable")
        distances = np.take_along_axis(distances, nearest, axis=1)
        is_majority = np.cumsum(votes[nearest], axis=1) > votes.sum() / 2
        reached = distances[np.arange(self.num_rows), is_majority.argmax(axis=1)]
        [centre] = best_rows(reached, 1, distances, contents_of(self))
        length = gram[centre, centre]
        return int(centre) if reached[centre] <= CANCELLING * length < np.inf and length > 0 else None

    def reduce(self, measure: Callable[[Block], Float64]) -> Float64 | None:
        return self._sum(measure, max_columns=widths.matrix_columns(self.num_rows))

    def _sum(self, measure: Callable[[FileBlock], Float64], *, max_columns: int) -> Float64 | None:
        cuts = self._job.cuts(max_columns, of_rows_only=True)
        work = _Measure(measure, max_columns, num_blocks=-(-len(cuts) // widths.MAX_PARTIAL_SUMS))
        num_items = -(-len(cuts) // max(1, work.num_blocks))
        total: Float64 | None = None
        for item, result in enumerate(self._executor.run(work, self._job, num_items)):
            total = result if total is None else np.add(total, result, out=total)
            self._progress(sum(part.num_columns for part in cuts[work.blocks_of(item)]))
        return total


class MixedRows:
    """The rows after a stage: each a weighted sum of the rows before it."""

    def __init__(self, rows: Rows, row_map: RowMap) -> None:
        self._rows = rows
        self._map = row_map

    @property
    def num_rows(self) -> int:
        return len(self._map.matrix)

    @property
    def num_columns(self) -> int:
        return self._rows.num_columns

    @property
    def num_examples(self) -> tuple[int, ...]:
        return self._map.num_examples

    # Facts of single updates are read only when each row belongs to one update (Strategy checks it).

    @property
    def staleness(self) -> tuple[int, ...]:
        return self._rows.staleness

    @property
    def discounts(self) -> Float64 | None:
        return self._rows.discounts

    @property
    def clients(self) -> tuple[str, ...]:
        return self._rows.clients

    @property
    def num_clients(self) -> int:
        return self._rows.num_clients

    @property
    def round_number(self) -> int:
        return self._rows.round_number

    def metric(self, name: str) -> Float64:
        return self._rows.metric(name)

    def squared_norms(self) -> Float64:
        factors = np.diagonal(self._map.matrix)
        if np.array_equal(self._map.matrix, np.diag(factors)):
            norms = np.zeros(self.num_rows)
            # A norm may be infinite, and 0 · ∞ is NaN.
            return np.multiply(self._rows.squared_norms(), factors**2, out=norms, where=factors != 0)
        return np.diagonal(self.gram()).copy()

    def gram(self) -> Float64:
        return self._mixed_gram

    @cached_property
    def _mixed_gram(self) -> Float64:
        matrix, gram = self._map.matrix, self._rows.gram()
        is_finite = np.isfinite(np.diagonal(gram))
        kept = matrix[:, is_finite]
        mixed: Float64 = np.matmul(np.matmul(kept, gram[np.ix_(is_finite, is_finite)]), kept.T)
        # A row whose square overflowed makes only the rows infinite that contain it; 0 · ∞ would be NaN.
        is_infinite = (matrix[:, ~is_finite] != 0).any(axis=1)
        mixed[is_infinite, :] = np.inf
        mixed[:, is_infinite] = np.inf
        mixed.flags.writeable = False
        return mixed

    def reduce(self, measure: Callable[[Block], Float64]) -> Float64 | None:
        return self._rows.reduce(_AfterStage(measure, self._map.matrix))


@dataclass(frozen=True)
class _Measure:
    """The work of one `reduce`: the sum of `measure` over a few neighbouring blocks."""

    measure: Callable[[FileBlock], Float64]
    max_columns: int
    num_blocks: int

    def blocks_of(self, item: int) -> slice:
        return slice(item * self.num_blocks, (item + 1) * self.num_blocks)

    def columns_of(self, job: Job, item: int) -> Sequence[Cut]:
        return job.cuts(self.max_columns, of_rows_only=True)[self.blocks_of(item)]

    def __call__(self, job: Job, item: int) -> Float64:
        total: Float64 | None = None
        for part in self.columns_of(job, item):
            # A norm may overflow to infinity; the rule decides what it means. errstate holds for one thread only.
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                measured = self.measure(FileBlock(job, part))
                total = measured if total is None else np.add(total, measured, out=total)
        if total is None:
            raise IndexError(item)
        return total


@dataclass(frozen=True, eq=False)
class _AfterStage:
    measure: Callable[[Block], Float64]
    matrix: Float64

    def __call__(self, block: Block) -> Float64:
        return self.measure(MixedBlock(block, self.matrix))


def _squared_norms(block: Block) -> Float64:
    norms = np.empty(block.num_rows)
    for index in range(block.num_rows):
        row = block.row(index)
        # Not np.dot: BLAS adds in an order that depends on its own threads.
        norms[index] = np.add.reduce(np.multiply(row, row, out=row))
    return norms


def _gram(block: FileBlock, *, around: int | None) -> Float64:
    return block.gram(around=around)
