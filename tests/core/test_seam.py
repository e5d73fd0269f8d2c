"""The seam serves rules that are not ours: throw-away ones, registered for the time of a test."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from fma_core.aggregation.aggregators import Aggregator, Block, Float64, Rows, aggregators
from fma_core.aggregation.aggregators import Krum as OwnKrum
from fma_core.aggregation.aggregators import Median as OwnMedian
from fma_core.arrays.codecs.safetensors import decode
from fma_core.arrays.spec import Spec
from fma_core.engine import widths
from fma_core.errors import NoUpdates
from tests.core.weights import fold_bytes, store


@dataclass(frozen=True)
class Median(Aggregator[None]):
    """By the matrix; ours is by sorted columns."""

    needs_matrix: ClassVar[bool] = True

    def combine(self, block: Block, decision: None) -> Float64:
        matrix = block.matrix()
        assert matrix.shape == (block.num_rows, block.num_columns)
        return np.median(matrix, axis=0)


@dataclass(frozen=True)
class ClippedMean(Aggregator[Float64]):
    max_norm: float

    def measure(self, rows: Rows) -> Float64:
        norms = np.sqrt(rows.squared_norms())
        return np.minimum(1, self.max_norm / np.where(norms == 0, 1, norms)) / rows.num_rows

    def combine(self, block: Block, decision: Float64) -> Float64:
        return block.weighted_sum(decision)


@dataclass(frozen=True)
class Krum(Aggregator[int]):
    """By a reduction of its own; ours is by the rows' Gram matrix."""

    f: int
    needs_matrix: ClassVar[bool] = True

    @property
    def min_updates(self) -> int:
        return 2 * self.f + 3

    def measure(self, rows: Rows) -> int:
        gram = rows.reduce(lambda block: np.einsum("ij,kj->ik", block.matrix(), block.matrix()))
        if gram is None:
            return 0
        squares = np.diag(gram)
        distances = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)
        np.fill_diagonal(distances, np.inf)
        nearest = np.sort(distances, axis=1)[:, : rows.num_rows - self.f - 2]
        return int(np.argmin(nearest.sum(axis=1)))

    def combine(self, block: Block, decision: int) -> Float64:
        return block.row(decision)


@dataclass(frozen=True)
class WrongShape(Aggregator[None]):
    def combine(self, block: Block, decision: None) -> Float64:
        return np.zeros(block.num_columns + 1)


GOLDEN = np.random.default_rng(42).normal(size=(9, 5))
GOLDEN[7] += 20
GOLDEN[8] -= 15


def fold_matrix(name, params, matrix, folder, part, **options):
    rows = [{"w": row, "n": np.array(i, np.int32)} for i, row in enumerate(matrix)]
    with aggregators.register_temporarily(name, part):
        rule = aggregators.build(name, params)
        return decode(fold_bytes(store(folder, rows), Spec.of(rows[0]), rule, folder, **options))


def test_the_matrix_and_sorted_columns_show_the_same_block(tmp_path):
    for matrix in (GOLDEN, GOLDEN[:8], GOLDEN.astype(np.float32)):
        found = fold_matrix("rule", None, matrix, tmp_path, Median)["w"]
        assert found.tobytes() == fold_matrix("rule", None, matrix, tmp_path, OwnMedian)["w"].tobytes()


def test_a_reduction_over_blocks_sees_all_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(widths, "MATRIX_VALUES", 64)
    matrix = np.random.default_rng(1).normal(size=(9, 1000))
    found = fold_matrix("rule", {"f": 2}, matrix, tmp_path, Krum)
    assert found["w"].tobytes() == fold_matrix("rule", {"f": 2}, matrix, tmp_path, OwnKrum)["w"].tobytes()
    assert found["w"].tobytes() in {row.tobytes() for row in matrix}
    assert found["n"] == 4  # integers do not pass through the rule


def test_clipped_mean(tmp_path):
    norms = np.linalg.norm(GOLDEN, axis=1)
    expected = (GOLDEN * np.minimum(1, 2 / norms)[:, None]).mean(axis=0)
    assert np.allclose(
        fold_matrix("clipped", [2.0], GOLDEN, tmp_path, ClippedMean)["w"], expected, rtol=1e-14
    )


@pytest.mark.parametrize(("part", "params"), [(Median, None), (ClippedMean, [3.0]), (Krum, [1])])
def test_threads_change_no_bit_and_progress_counts_both_steps(part, params, tmp_path, monkeypatch):
    monkeypatch.setattr(widths, "STREAM_COLUMNS", 1000)
    monkeypatch.setattr(widths, "MATRIX_VALUES", 700 * 6)
    matrix = np.random.default_rng(0).normal(size=(6, 10_007)).astype(np.float32)
    found, told = set(), []
    for threads in (1, 2, 5):
        told.clear()
        result = fold_matrix("rule", params, matrix, tmp_path, part, threads=threads, progress=told.append)
        found.add(result["w"].tobytes())
        assert told == sorted(told)
        assert told[-1] == 1
    assert len(found) == 1


def test_the_width_of_blocks_changes_nothing_that_a_rule_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(widths, "STREAM_COLUMNS", 1000)
    matrix = np.random.default_rng(0).normal(size=(4, 5000))
    bits = {
        fold_matrix("c", [3.0], matrix, tmp_path, ClippedMean, block_columns=width)["w"].tobytes()
        for width in (None, 7, 999, 10**6)
    }
    assert len(bits) == 1


def test_too_few_updates_for_a_rule(tmp_path):
    with pytest.raises(NoUpdates, match="at least 5 updates, found 4"):
        fold_matrix("krum", [1], GOLDEN[:4], tmp_path, Krum)


def test_a_model_of_integers_only_has_no_columns_to_measure(tmp_path):
    rows = [{"n": np.array([i, 2 * i])} for i in range(5)]
    for rule in (Krum(1), ClippedMean(1.0), Median()):
        found = decode(fold_bytes(store(tmp_path, rows), Spec.of(rows[0]), rule, tmp_path))
        assert found["n"].tolist() == [2, 4]


def test_rows_know_the_examples_and_the_columns(tmp_path):
    seen = []

    @dataclass(frozen=True)
    class Spy(Median):
        def measure(self, rows: Rows) -> None:
            seen.append((rows.num_rows, rows.num_columns, rows.num_examples))

    fold_matrix("spy", None, GOLDEN, tmp_path, Spy)
    assert seen == [(9, 5, (1,) * 9)]


def test_a_rule_that_gives_another_shape_is_told_so(tmp_path):
    with pytest.raises(ValueError, match="WrongShape.combine must give"):
        fold_matrix("wrong", None, GOLDEN, tmp_path, WrongShape)
