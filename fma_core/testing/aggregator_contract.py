"""The contract of aggregation rules; the file is long because a rule inherits it as one class."""

from __future__ import annotations

import functools
import json
import re
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fma_core.aggregation.aggregators import Aggregator, aggregators
from fma_core.aggregation.optimisers import FedAdam
from fma_core.aggregation.stages import Bucketing, ClipNorm
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.safetensors import decode
from fma_core.arrays.spec import Arrays, Spec
from fma_core.engine import Serial, Threads, UpdateUse, combine, widths
from fma_core.engine.file_block import FileBlock
from fma_core.engine.uses import row_weights_of
from fma_core.errors import AggregationError, FMAError, InvalidStrategy, NonFiniteResult
from fma_core.in_memory import ArrayRounds, FoldedBytes, StoredRound, Update
from fma_core.testing.blocks import StreamedBlock, small_blocks
from fma_core.testing.comparison import difference_between, plain_attributes, same_bits
from fma_core.testing.drawn_updates import (
    MODEL,
    clients_of,
    draw_extremes,
    draw_updates,
    in_float64,
    is_float,
    map_floats,
    map_floats_of,
)
from fma_core.testing.elsewhere import Elsewhere
from fma_core.testing.matrix_rows import MatrixBlock, MatrixRows
from fma_core.testing.part_contract import PartContract
from fma_core.testing.require import require, through_pickle

NAME = re.compile(r"[A-Za-z0-9_]+")
# Repeatable, and without files in the plugin author's folder. The phase that explains takes longer than all others.
PHASES = (Phase.generate, Phase.shrink)
bounded = settings(max_examples=8, deadline=None, database=None, derandomize=True, phases=PHASES)


class AggregatorContract(PartContract):
    """The tests of an aggregation rule: inherit it, and set `part`; see `PartContract` for `departures`.

    model: an array of zeros for each array of a model that the rule can aggregate.
    is_scale_equivariant: whether updates that are c times as long give c times the step; checked when True.
    is_exact: whether the order of the updates does not change a single bit.
    rounding: the largest relative difference that counts as rounding.
    """

    part: ClassVar[Aggregator[Any]]
    model: ClassVar[Arrays] = MODEL
    is_scale_equivariant: ClassVar[bool] = False
    is_exact: ClassVar[bool] = False
    rounding: ClassVar[float] = 1e-9

    registry = aggregators
    kind = Aggregator
    may_depart = frozenset(
        {
            "test_the_order_of_the_updates_changes_only_rounding",
            "test_its_weights_of_rows_follow_the_updates",
            "test_updates_that_agree_are_the_answer",
            "test_a_shift_of_all_rows_that_shifts_the_answer_is_claimed",
        }
    )

    def metric(self, name: str, index: int) -> float:
        """The metric that client number `index` reports; override it when the rule refuses these numbers."""
        return 1.0 + index

    # Its declarations.

    def test_it_knows_its_smallest_number_of_updates(self) -> None:
        least = self.part.min_updates
        require(
            type(least) is int and least >= 1, f"min_updates must be an integer of 1 or more, found {least!r}"
        )
        require(
            least == 1 or self.part.minimum not in ("", "1"),
            f"{self._name} needs {least} updates; say so to people too: minimum: ClassVar[str] = '2·f + 3'",
        )

    def test_its_payloads_states_and_metrics_have_legal_names(self) -> None:
        for field in ("payloads", "states", "required_metrics"):
            names = list(getattr(self.part, field))
            require(len({*names}) == len(names), f"{field} must be different names, found {names}")
            for name in names:
                require(
                    isinstance(name, str) and NAME.fullmatch(name) is not None,
                    f"{field} must be names of letters, digits and _, found {name!r}: they become part of array names",
                )
        for name, fill in self.part.states.items():
            require(
                bool(np.isfinite(fill)), f"state {name!r} must begin with a finite number, found {fill!r}"
            )
        for name in self.part.required_metrics:
            self.part.check_metric(name, self.metric(name, 0))

    def test_what_it_tells_clients_is_json(self) -> None:
        config = dict(self.part.client_config)
        try:
            sent = json.loads(json.dumps(config, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise AssertionError(f"client_config must be JSON, found {config!r}: {error}") from error
        require(
            sent == config, f"client_config must survive JSON, found {config!r}, which comes back as {sent!r}"
        )

    def test_its_weights_of_integers_are_counts(self) -> None:
        weights = list(self.part.integer_weights([3, 0, 5]))
        require(
            len(weights) == 3 and all(type(weight) is int and weight >= 0 for weight in weights),
            f"integer_weights must give an int of 0 or more for each update, found {weights!r}",
        )

    # Its results.

    @pytest.mark.parametrize("more", [0, 1, 5])
    def test_it_gives_a_finite_model_of_the_right_shapes(self, more: int) -> None:
        for update_kind in self.part.update_kinds:
            strategy = Strategy(self.part, update_kind=update_kind)
            self._fold_well(strategy, self._draw(strategy, more=more))

    def test_it_goes_with_the_stages_and_optimisers_that_it_accepts(self) -> None:
        partners: list[dict[str, Any]] = [
            {"optimiser": FedAdam()},
            {"stages": (ClipNorm(1.0),)},
            {"stages": (Bucketing(),)},
        ]
        for partner in partners:
            try:
                strategy = Strategy(self.part, **partner)
            except InvalidStrategy:
                continue
            self._fold_well(strategy, self._draw(strategy))

    def test_executors_and_cuts_change_no_bit(self) -> None:
        with self._stored() as stored, small_blocks():
            expected = self._bytes(stored)
            for columns in (None, 64, 7, 1):
                folded = self._bytes(stored, executor=Threads(3), block_columns=columns)
                require(
                    folded == expected,
                    f"{self._name} gives other bits when its columns are cut into blocks of {columns or 'any'} and "
                    "threads share them; `combine` may look at nothing but its block and the decision, and must not "
                    "use sums whose order depends on the width (np.dot, @, a sum over the whole matrix)",
                )

    def test_other_processes_get_what_they_need(self) -> None:
        with self._stored() as stored, small_blocks():
            require(
                self._bytes(stored, executor=Elsewhere()) == self._bytes(stored),
                f"{self._name} gives other bits when the rule and its decision went through pickle: something that "
                "it decides by is in neither",
            )

    def test_the_same_updates_give_the_same_bits_again(self) -> None:
        with self._stored() as stored:
            require(
                self._bytes(stored) == self._bytes(stored),
                f"{self._name} gives other bits the second time; draw random numbers from "
                "np.random.default_rng([seed, rows.round_number]), and keep nothing between folds",
            )

    def test_the_order_of_the_updates_changes_only_rounding(self) -> None:
        updates = self._draw(self._rows_only, more=3, model=self._wide)
        expected = self._step(updates)
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(len(updates))
            reordered = self._step([updates[index] for index in order])
            difference = difference_between(reordered, expected)
            require(
                difference <= (0 if self.is_exact else self.rounding),
                f"{self._name} depends on the order of the updates (a relative difference of {difference:.2g}); "
                "decide by values, examples or clients, never by positions",
            )

    def test_its_weights_of_rows_are_shares(self) -> None:
        updates = self._draw(self._rows_only, more=3, model=self._wide)
        weights = [use.weight for use in self._uses(updates)]
        known = [weight for weight in weights if weight is not None]
        require(
            all(0 <= weight <= 1 for weight in known)
            and (len(known) < len(weights) or not any(known) or abs(sum(known) - 1) <= self.rounding),
            f"the weights that {self._name} gives to updates must be shares, whose sum is 1; found {weights}",
        )

    def test_its_weights_of_rows_follow_the_updates(self) -> None:
        updates = self._draw(self._rows_only, more=3, model=self._wide)
        uses = self._uses(updates)
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(len(updates))
            for use, index in zip(self._uses([updates[index] for index in order]), order, strict=True):
                expected = uses[index]
                require(
                    (use.verdict, use.weight is None) == (expected.verdict, expected.weight is None)
                    and abs((use.weight or 0) - (expected.weight or 0)) <= self.rounding,
                    f"{self._name} must use an update in the same way wherever it stands; found {use} and {expected}",
                )

    def test_its_weights_of_rows_make_the_answer(self) -> None:
        rng = np.random.default_rng(0)
        count = self.part.min_updates + 3
        rows = MatrixRows(
            rng.normal(0.3, 1.0, (count, 12)),
            num_examples=tuple(int(number) for number in rng.integers(1, 50, count)),
            staleness=tuple(index % 3 for index in range(count)),
            clients=tuple(clients_of(self._rows_only, count)),
            metrics={
                name: [self.metric(name, index) for index in range(count)]
                for name in self.part.required_metrics
            },
        )
        block = MatrixBlock(
            rows.values,
            states={name: np.full(12, fill) for name, fill in self.part.states.items()},
            payloads={name: rng.normal(size=(count, 12)) for name in self.part.payloads},
        )
        decision = self.part.measure(rows)
        told = row_weights_of(self.part, decision, count)
        if told is None or np.isnan(told.values).any():
            return
        expected = np.add.reduce(told.values[:, None] * rows.values, axis=0)
        difference = difference_between({"row": self.part.combine(block, decision)}, {"row": expected})
        require(
            difference <= self.rounding,
            f"{self._name} says that its answer is the sum of the rows with the weights {told.values}; the relative "
            f"difference is {difference:.2g}. Rows that have weights of their own in each coordinate get NaN",
        )

    def test_a_shift_of_all_rows_shifts_the_answer_if_that_is_claimed(self) -> None:
        if self.part.is_translation_equivariant:
            difference = self._difference_after_shift()
            require(
                difference <= self.rounding,
                f"{self._name} claims is_translation_equivariant, but a shift of all rows by a vector does not shift "
                f"its answer by that vector (a relative difference of {difference:.2g}); the engine would then "
                "compute another model than the rule",
            )

    def test_a_shift_of_all_rows_that_shifts_the_answer_is_claimed(self) -> None:
        if not self.part.is_translation_equivariant:
            require(
                self._difference_after_shift() > self.rounding,
                f"{self._name} seems to be translation equivariant: set is_translation_equivariant = True, and "
                "rounds can do without a model to start from and read less; or say in `departures` why not",
            )

    def test_longer_rows_give_a_longer_step_if_that_is_claimed(self) -> None:
        if self.is_scale_equivariant:
            updates = self._draw(self._rows_only, more=3, model=self._wide)
            longer = [map_floats(update, lambda _, array: 4 * array) for update in updates]
            expected = map_floats_of(self._step(updates), lambda array: 4 * array)
            difference = difference_between(self._step(longer), expected)
            require(
                difference <= self.rounding,
                f"{self._name} is said to be scale equivariant; the difference is {difference:.2g}",
            )

    def test_updates_that_agree_are_the_answer(self) -> None:
        updates = self._draw(self._rows_only, model=self._wide)
        agreed = [replace(updates[0], client=update.client) for update in updates]
        sent = updates[0].arrays
        expected = {name: sent.get(name, array) for name, array in self._wide.items()}
        difference = difference_between(self._step(agreed), expected)
        require(
            difference <= self.rounding,
            f"{self._name} must give what all updates agree on; the relative difference is {difference:.2g}",
        )

    def test_one_enormous_update_is_outvoted_or_refused(self) -> None:
        strategy = self._weights_or_delta
        updates = self._draw(strategy, more=3)
        for index in (0, len(updates) - 1):
            enormous = list(updates)
            enormous[index] = map_floats(
                updates[index], lambda _, array: np.full_like(array, np.finfo(np.float16).max)
            )
            self._fold_or_refuse(strategy, enormous)
            wide = self._draw(strategy, more=3, model=self._wide)
            wide[index] = map_floats(wide[index], lambda _, array: np.full_like(array, 1e300))
            self._fold_or_refuse(strategy, wide, model=self._wide)

    def test_any_finite_values_and_examples_give_a_model_or_a_reason(self) -> None:
        strategy = self._weights_or_delta
        least = strategy.min_updates

        @bounded
        @given(
            examples=st.lists(st.integers(0, 2**40), min_size=least, max_size=least + 4),
            seed=st.integers(0, 2**32 - 1),
            share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
            columns=st.sampled_from([5, 64]),
        )
        def check(examples: list[int], seed: int, share: float, columns: int) -> None:
            updates = draw_updates(strategy, self.model, len(examples), metric=self.metric, seed=seed)
            updates = draw_extremes(updates, seed, share)
            updates = [
                replace(update, num_examples=count) for update, count in zip(updates, examples, strict=True)
            ]
            folded = self._fold_or_refuse(strategy, updates)
            again = self._fold_or_refuse(strategy, updates, block_columns=columns)
            require(folded == again, f"{self._name} gives other bits in blocks of {columns} columns")

        check()

    # Its limits.

    def test_memory_does_not_grow_with_the_updates(self) -> None:
        row_bytes = 8 * (columns := 8192)
        model = {**self.model, "padding": np.zeros(columns, np.float32)}
        strategy = self._weights_or_delta
        few, many = ([*self._draw(strategy, more=more, model=model)] for more in (3, 33))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(combine, "FileBlock", FileBlock if self.part.needs_matrix else StreamedBlock)
            # Blocks with all rows keep one size.
            patch.setattr(widths, "MATRIX_VALUES", 2**13)
            patch.setattr(widths, "GRAM_VALUES", 2**13)
            self._peak(strategy, many, model)  # allocates the buffers that are reused
            growth = self._peak(strategy, many, model) - self._peak(strategy, few, model)
        added = len(many) - len(few)
        require(
            growth < added * row_bytes / 4,
            f"{self._name} holds {growth / added / row_bytes:.2f} of a row's block in memory for each update more; "
            "take rows as they come (block.weighted_sum), or say needs_matrix = True",
        )

    def test_it_keeps_nothing_but_its_state(self) -> None:
        strategy = self._weights_or_delta
        rounds = [self._draw(strategy, more=more, seed=more) for more in (0, 2)]
        before = plain_attributes(self.part)
        first = self._play(strategy, rounds)
        require(
            plain_attributes(self.part) == before,
            f"`measure` and `combine` must not change the rule; {before} became {plain_attributes(self.part)}",
        )
        fresh = replace(strategy, aggregator=through_pickle(self.part, self._name))
        for again in (self._play(strategy, rounds), self._play(fresh, rounds)):
            require(
                same_bits(again, first),
                f"{self._name} gives other models when the same rounds are played again; what it keeps between "
                "rounds belongs into `states`, which are files",
            )

    # Helpers.

    @property
    def _weights_or_delta(self) -> Strategy:
        return Strategy(self.part, update_kind=self.part.update_kinds[0])

    @property
    def _rows_only(self) -> Strategy:
        """A strategy for laws of the rule alone: an update is its row, and the model before the round is zero."""
        return Strategy(self.part, update_kind="delta" if "delta" in self.part.update_kinds else "weights")

    @functools.cached_property
    def _wide(self) -> Arrays:
        return in_float64(self.model)

    def _draw(
        self, strategy: Strategy, *, more: int = 0, model: Arrays | None = None, seed: int = 0
    ) -> list[Update]:
        model = self.model if model is None else model
        return draw_updates(strategy, model, strategy.min_updates + more, metric=self.metric, seed=seed)

    def _stored(self) -> StoredRound:
        strategy = self._weights_or_delta
        updates = self._draw(strategy, more=4)
        return StoredRound(strategy, updates, start=self.model, num_clients=len(updates) + 2)

    def _bytes(self, stored: StoredRound, **options: Any) -> FoldedBytes:
        try:
            with np.errstate(all="ignore"):
                return stored.fold(**{"executor": Serial(), **options})
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 - a rule may raise anything; _refused raises it again
            self._refused(error)

    def _step(self, updates: Sequence[Update]) -> Arrays:
        with StoredRound(self._rows_only, updates, start=self._wide) as stored:
            return decode(self._bytes(stored).model)

    def _uses(self, updates: Sequence[Update]) -> tuple[UpdateUse, ...]:
        with StoredRound(self._rows_only, updates, start=self._wide) as stored:
            return self._bytes(stored).uses

    def _fold_well(self, strategy: Strategy, updates: Sequence[Update]) -> None:
        with StoredRound(strategy, updates, start=self.model) as stored:
            self._check_model(decode(self._bytes(stored).model), self.model)

    def _fold_or_refuse(
        self, strategy: Strategy, updates: Sequence[Update], *, model: Arrays | None = None, **options: Any
    ) -> FoldedBytes | type[FMAError]:
        model = self.model if model is None else model
        with StoredRound(strategy, updates, start=model) as stored:
            try:
                with np.errstate(all="ignore"):
                    folded = stored.fold(executor=Serial(), **options)
            except AggregationError as error:
                return type(error)
            except Exception as error:
                raise AssertionError(
                    f"{self._name} must give a model or raise an AggregationError (NonFiniteResult, NoUpdates) for "
                    f"any finite values and any numbers of examples, found {type(error).__name__}: {error}"
                ) from error
        self._check_model(decode(folded.model), model)
        return folded

    def _check_model(self, result: Arrays, model: Arrays) -> None:
        require(
            Spec.of(result) == Spec.of(model),
            f"the result must have the arrays of {Spec.of(model)}, found {Spec.of(result)}",
        )

    def _refused(self, error: Exception) -> NoReturn:
        finite = "; ordinary updates must give finite values" if isinstance(error, NonFiniteResult) else ""
        raise AssertionError(
            f"{self._name} failed for ordinary updates{finite}: {type(error).__name__}: {error}"
        ) from error

    def _difference_after_shift(self) -> float:
        updates = self._draw(self._rows_only, more=3, model=self._wide)
        rng = np.random.default_rng(1)
        shifts = {
            name: rng.normal(0, 3, array.shape)
            for name, array in updates[0].arrays.items()
            if is_float(array)
        }
        own = [name for name in self._wide if name in shifts]
        shifted = [
            map_floats(update, lambda name, array: array + shifts[name], only=own) for update in updates
        ]
        expected = {
            name: array + shifts[name] if name in own else array
            for name, array in self._step(updates).items()
        }
        return difference_between(self._step(shifted), expected)

    def _play(self, strategy: Strategy, rounds: Sequence[Sequence[Update]]) -> list[Arrays]:
        played = ArrayRounds(strategy, self.model)
        results: list[Arrays] = []
        for updates in rounds:
            results.append(played.play(updates, executor=Serial()))
            results.append(played.state or {})
        return results

    def _peak(self, strategy: Strategy, updates: Sequence[Update], model: Arrays) -> int:
        with StoredRound(strategy, updates, start=model) as stored:
            tracemalloc.start()
            try:
                self._bytes(stored, block_columns=2**16)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
