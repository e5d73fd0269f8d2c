"""The contract of server optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from fma_core.aggregation.aggregators import AvgValuesIfData, Float64
from fma_core.aggregation.optimisers import Optimiser, optimisers
from fma_core.aggregation.strategy import Strategy
from fma_core.engine import Serial, Threads
from fma_core.in_memory import ArrayRounds, StoredRound, Update
from fma_core.testing.aggregator_contract import NAME
from fma_core.testing.drawn_updates import MODEL, draw_updates
from fma_core.testing.elsewhere import Elsewhere
from fma_core.testing.part_contract import PartContract
from fma_core.testing.require import require, through_pickle

COLUMNS = 41


class OptimiserContract(PartContract):
    """The tests of an optimiser: inherit it, and set `part`; see `PartContract` for `departures`."""

    part: ClassVar[Optimiser]

    registry = optimisers
    kind = Optimiser
    may_depart = frozenset({"test_a_step_of_nothing_from_a_fresh_state_moves_nothing"})

    def test_its_states_have_legal_names_and_begin_finite(self) -> None:
        for name, fill in self.part.states.items():
            require(
                NAME.fullmatch(name) is not None,
                f"states must be names of letters, digits and _, found {name!r}",
            )
            require(
                bool(np.isfinite(fill)), f"state {name!r} must begin with a finite number, found {fill!r}"
            )

    @pytest.mark.parametrize("scale", [1e-300, 1e-3, 1.0, 1e6])
    def test_steps_are_finite_numbers_for_each_column(self, scale: float) -> None:
        state = self._fresh(COLUMNS)
        for number in range(1, 4):
            step = self.part.step(scale * _delta(number), state, number)
            require(
                step.shape == (COLUMNS,) and step.dtype == np.float64,
                f"`step` must give {(COLUMNS,)} float64 values, found {step.shape} {step.dtype}",
            )
            for what, values in {"step": step, **state}.items():
                require(
                    bool(np.isfinite(values).all()), f"{what!r} must stay finite for deltas around {scale}"
                )

    def test_columns_do_not_depend_on_each_other(self) -> None:
        whole, left, right = self._fresh(COLUMNS), self._fresh(9), self._fresh(COLUMNS - 9)
        for number in range(1, 4):
            delta = _delta(number)
            parts = [
                self.part.step(delta[:9].copy(), left, number),
                self.part.step(delta[9:].copy(), right, number),
            ]
            step = self.part.step(delta.copy(), whole, number)
            require(
                np.concatenate(parts).tobytes() == step.tobytes(),
                f"{self._name} must treat every column by itself; block by block it gives other bits",
            )

    def test_a_step_of_nothing_from_a_fresh_state_moves_nothing(self) -> None:
        step = self.part.step(np.zeros(COLUMNS), self._fresh(COLUMNS), 1)
        require(not step.any(), f"{self._name} must not move the model when clients changed nothing")

    def test_executors_and_cuts_change_no_bit_of_model_or_state(self) -> None:
        strategy = self._strategy
        with StoredRound(strategy, self._draw(0), start=MODEL) as stored:
            expected = stored.fold(executor=Serial())
            for executor, columns in ((Threads(3), 7), (Threads(2), 64), (Elsewhere(), 100)):
                folded = stored.fold(executor=executor, block_columns=columns)
                require(
                    folded == expected,
                    f"{self._name} gives other bits under {executor} and {columns} columns",
                )

    def test_rounds_go_on_from_the_state_that_was_kept(self) -> None:
        first = self._play(self._strategy)
        fresh = Strategy(AvgValuesIfData(), optimiser=through_pickle(self.part, self._name))
        for strategy in (self._strategy, fresh):
            require(
                self._play(strategy) == first,
                f"{self._name} gives other models when the same rounds are played again; what it keeps between "
                "rounds belongs into `states`, which are files",
            )

    @property
    def _strategy(self) -> Strategy:
        return Strategy(AvgValuesIfData(), optimiser=self.part)

    def _fresh(self, columns: int) -> dict[str, Float64]:
        return {name: np.full(columns, fill) for name, fill in self.part.states.items()}

    def _draw(self, seed: int) -> list[Update]:
        return draw_updates(self._strategy, MODEL, 4, metric=lambda name, index: 1.0, seed=seed)

    def _play(self, strategy: Strategy) -> list[Mapping[str, bytes]]:
        """The bytes of model and state after each of three rounds, played through files."""
        rounds = ArrayRounds(strategy, MODEL)
        played: list[Mapping[str, bytes]] = []
        for seed in range(3):
            rounds.play(self._draw(seed), executor=Serial())
            played.extend(
                {name: array.tobytes() for name, array in (arrays or {}).items()}
                for arrays in (rounds.model, rounds.state)
            )
        return played


def _delta(seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=COLUMNS)
