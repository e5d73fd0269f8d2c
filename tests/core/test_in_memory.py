"""Folds of arrays in memory are those of files, and their helpers are what rules see."""

import numpy as np
import pytest

from fma_core.aggregation.aggregators import AvgValuesIfData, Mean, Scaffold
from fma_core.aggregation.optimisers import FedAvgM
from fma_core.aggregation.stages import Exclude
from fma_core.aggregation.strategy import Strategy
from fma_core.engine import Serial
from fma_core.errors import NoUpdates, ShapeMismatch, UnexpectedArray
from fma_core.in_memory import ArrayRounds, StoredRound, Update, fold_arrays
from fma_core.testing import MatrixBlock, MatrixRows

ROWS = np.random.default_rng(0).normal(size=(4, 6))
EXAMPLES = [1, 2, 3, 4]


def test_a_rule_alone_and_plain_arrays():
    found = fold_arrays(AvgValuesIfData(), [{"w": row} for row in ROWS])
    assert list(found) == ["w"]
    np.testing.assert_allclose(found["w"], ROWS.mean(axis=0), rtol=1e-14)


def test_examples_count():
    updates = [Update({"w": row}, num_examples=n) for row, n in zip(ROWS, EXAMPLES, strict=True)]
    np.testing.assert_allclose(
        fold_arrays(Mean(), updates)["w"], np.average(ROWS, axis=0, weights=EXAMPLES), rtol=1e-14
    )


def test_deltas_begin_at_zero_unless_a_start_is_given():
    strategy, updates = Strategy(Mean(), update_kind="delta"), [{"w": ROWS[0]}]
    assert fold_arrays(strategy, updates)["w"].tobytes() == ROWS[0].tobytes()
    assert np.array_equal(fold_arrays(strategy, updates, {"w": np.ones(6)})["w"], 1 + ROWS[0])


def test_personal_arrays_come_from_the_start():
    strategy = Strategy(Mean(), stages=(Exclude(("bn",)),))
    start = {"w": np.zeros(6), "bn": np.arange(3)}
    assert np.array_equal(fold_arrays(strategy, [{"w": ROWS[0]}], start)["bn"], np.arange(3))
    with pytest.raises(UnexpectedArray):
        fold_arrays(strategy, [{"bn": np.arange(3)}], start)


def test_rows_are_measured_from_the_base_that_an_update_names():
    strategy = Strategy(Mean(), optimiser=FedAvgM(momentum=0.0))
    update = Update({"w": np.array([5.0])}, base={"w": np.array([3.0])})
    assert fold_arrays(strategy, [update], {"w": np.array([10.0])})["w"] == 12


def test_other_arrays_are_refused():
    with pytest.raises(ShapeMismatch):
        fold_arrays(Mean(), [{"w": ROWS[0]}, {"w": ROWS[0][:5]}])


def test_no_updates():
    with pytest.raises(NoUpdates):
        fold_arrays(Mean(), [], {"w": ROWS[0]})


def test_rounds_go_on_from_model_and_state():
    rounds = ArrayRounds(Strategy(AvgValuesIfData(), optimiser=FedAvgM(momentum=0.5)), {"w": np.zeros(1)})
    for expected in (1.0, 2.5, 4.25):  # steps of 1, 1.5 and 1.75
        assert rounds.play([{"w": rounds.model["w"] + 1}])["w"] == expected
    assert rounds.number == 3
    assert rounds.state["optimiser.v/w"] == 1.75


def test_payloads_are_no_part_of_the_model():
    updates = [{"w": row, "control/w": np.ones(6)} for row in ROWS]
    rounds = ArrayRounds(Scaffold(), num_clients=8)
    assert list(rounds.play(updates)) == ["w"]
    assert np.array_equal(rounds.state["aggregator.c/w"], np.full(6, 0.5))


def test_the_files_are_gone_afterwards():
    with StoredRound(Mean(), [{"w": ROWS[0]}]) as stored:
        first = stored.fold(executor=Serial(), block_columns=2)
        assert stored.fold() == first
    with pytest.raises(FileNotFoundError):
        stored.fold()


def test_matrix_rows_and_blocks_are_the_matrix():
    rows, block = MatrixRows(ROWS, metrics={"loss": (1, 2, 3, 4)}), MatrixBlock(ROWS)
    np.testing.assert_allclose(rows.gram(), ROWS @ ROWS.T)
    np.testing.assert_allclose(rows.squared_norms(), np.diag(ROWS @ ROWS.T))
    np.testing.assert_allclose(rows.reduce(lambda part: part.row(1)), ROWS[1])
    assert (rows.num_rows, rows.num_columns, rows.num_examples) == (4, 6, (1, 1, 1, 1))
    assert (rows.clients, rows.num_clients, rows.metric("loss").sum()) == (("0", "1", "2", "3"), 4, 10)
    np.testing.assert_allclose(block.weighted_sum(EXAMPLES), np.array(EXAMPLES) @ ROWS)
    np.testing.assert_array_equal(block.sorted_columns([0, 2]), np.sort(ROWS[[0, 2]].T, axis=1))
