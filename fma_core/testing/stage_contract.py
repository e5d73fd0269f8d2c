"""The contract of stages, of rows or of arrays."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fma_core.aggregation.aggregators import AvgValuesIfData, Float64
from fma_core.aggregation.stages import ArrayStage, RowMap, RowStage, Stage, stages
from fma_core.aggregation.strategy import Strategy
from fma_core.engine import Serial, Threads
from fma_core.errors import AggregationError
from fma_core.in_memory import StoredRound
from fma_core.testing.aggregator_contract import bounded
from fma_core.testing.drawn_updates import MODEL, draw_updates
from fma_core.testing.elsewhere import Elsewhere
from fma_core.testing.matrix_rows import MatrixRows
from fma_core.testing.part_contract import PartContract
from fma_core.testing.require import require

each_size = pytest.mark.parametrize("wanted", [1, 2, 5])


class StageContract(PartContract):
    """The tests of a stage: inherit it, and set `part`.

    rounding: the largest difference that counts as rounding.
    """

    part: ClassVar[Stage]
    rounding: ClassVar[float] = 1e-9

    registry = stages
    kind = Stage

    def test_it_is_a_stage_of_rows_or_of_arrays(self) -> None:
        require(
            isinstance(self.part, (RowStage, ArrayStage)),
            f"{self._name} must be a RowStage (new rows from old ones) or an ArrayStage (which arrays take part)",
        )

    @each_size
    def test_its_smallest_number_of_updates_gives_what_follows_enough(self, wanted: int) -> None:
        least = self.part.min_updates(wanted)
        require(
            type(least) is int and least >= wanted - (not isinstance(self.part, RowStage)),
            f"min_updates({wanted}) must be an integer of {wanted} or more, found {least!r}",
        )
        for more in (0, 1, 4) if isinstance(self.part, RowStage) else ():
            row_map = self._map(_rows(least + more))
            require(
                len(row_map.matrix) >= wanted,
                f"min_updates({wanted}) is {least}, but of {least + more} updates {self._name} makes only "
                f"{len(row_map.matrix)}",
            )

    def test_new_rows_are_finite_sums_of_the_old_and_count_examples(self) -> None:
        for rows in self._row_counts():
            row_map = self._map(_rows(rows))
            matrix, examples = row_map.matrix, row_map.num_examples
            require(
                matrix.ndim == 2 and matrix.shape[1] == rows and matrix.dtype == np.float64,
                f"the matrix must be float64 with {rows} columns, found {matrix.shape} {matrix.dtype}",
            )
            require(bool(np.isfinite(matrix).all()), "the matrix must be finite")
            require(
                len(examples) == len(matrix) and all(type(n) is int and n >= 0 for n in examples),
                f"num_examples must be an int of 0 or more for each of {len(matrix)} new rows, found {examples!r}",
            )

    def test_rows_have_one_owner_unless_it_says_that_it_mixes(self) -> None:
        for rows in self._row_counts():
            matrix = self._map(_rows(rows)).matrix
            is_diagonal = matrix.shape == (rows, rows) and not matrix[~np.eye(rows, dtype=bool)].any()
            require(
                is_diagonal or (isinstance(self.part, RowStage) and self.part.mixes),
                f"{self._name} makes rows of several others: it must say mixes = True, so that it is not put before a "
                "rule that must know whose each row is",
            )

    def test_a_shift_of_all_rows_shifts_the_new_ones_if_that_is_claimed(self) -> None:
        for rows in self._row_counts():
            if isinstance(self.part, RowStage) and self.part.is_translation_equivariant:
                values = _rows(rows)
                shifted = self._map(values + 3.0).matrix @ (values + 3.0)
                expected = self._map(values).matrix @ values + 3.0
                difference = float(np.abs(shifted - expected).max())
                require(
                    difference <= 100 * self.rounding,
                    f"{self._name} claims is_translation_equivariant, but a shift of all rows by 3 does not shift the "
                    f"new ones by 3 (a difference of {difference:.2g})",
                )

    def test_enormous_and_equal_rows_give_a_finite_matrix_or_a_reason(self) -> None:
        for rows in self._row_counts():
            enormous = _rows(rows)
            enormous[0] = 1e300
            for values in (enormous, np.zeros((rows, 3)), np.full((rows, 3), 1e300), np.ones((rows, 0))):
                try:
                    row_map = self._map(values)
                except AggregationError:
                    continue
                require(
                    bool(np.isfinite(row_map.matrix).all()),
                    f"{self._name} must give a finite matrix or raise an AggregationError for any finite rows",
                )

    def test_the_same_rows_give_the_same_matrix_and_the_part_stays_as_it_is(self) -> None:
        before = repr(vars(self.part))
        for rows in self._row_counts():
            values = _rows(rows)
            require(
                self._map(values).matrix.tobytes() == self._map(values).matrix.tobytes(),
                f"{self._name} gives another matrix the second time; draw random numbers from "
                "np.random.default_rng([seed, rows.round_number])",
            )
        require(repr(vars(self.part)) == before, f"`map_rows` must not change the stage; found {self.part!r}")

    def test_executors_and_cuts_change_no_bit(self) -> None:
        strategy = Strategy(AvgValuesIfData(), stages=(self.part,))
        if isinstance(self.part, ArrayStage):
            return  # only the author knows the arrays of the model
        updates = draw_updates(strategy, MODEL, strategy.min_updates + 3, metric=lambda name, index: 1.0)
        with StoredRound(strategy, updates, start=MODEL) as stored:
            expected = stored.fold(executor=Serial())
            for executor, columns in ((Threads(3), 7), (Elsewhere(), 64)):
                folded = stored.fold(executor=executor, block_columns=columns)
                require(
                    folded == expected,
                    f"{self._name} gives other bits under {executor} and {columns} columns",
                )

    def test_it_answers_for_every_name_of_an_array(self) -> None:
        part = self.part
        if not isinstance(part, ArrayStage):
            return

        @bounded
        @given(st.text(min_size=1))
        def check(name: str) -> None:
            includes = part.includes(name)
            require(type(includes) is bool, f"includes({name!r}) must be True or False, found {includes!r}")
            require(
                part.includes(name) == includes, f"includes({name!r}) must give the same answer every time"
            )

        check()

    def _row_counts(self) -> tuple[int, ...]:
        """The numbers of rows to try; none for a stage of arrays."""
        if not isinstance(self.part, RowStage):
            return ()
        least = self.part.min_updates(1)
        return least, least + 1, least + 6

    def _map(self, values: Float64) -> RowMap:
        if not isinstance(self.part, RowStage):
            raise TypeError(f"{self._name} is no RowStage")
        with np.errstate(all="ignore"):
            return self.part.map_rows(MatrixRows(values, num_examples=tuple(range(1, len(values) + 1))))


def _rows(count: int) -> Float64:
    values: Float64 = np.random.default_rng(count).normal(size=(count, 6))
    return values
