"""Row stages against their papers line by line, alone and one after the other, and what they do at the edges."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fma_core.aggregation.aggregators import (
    Bulyan,
    GeometricMedian,
    Krum,
    Mean,
    Median,
    MultiKrum,
    TrimmedMean,
)
from fma_core.aggregation.stages import Bucketing, ClipNorm, NearestNeighbourMixing, stages
from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.safetensors import encode
from fma_core.arrays.spec import Spec
from fma_core.engine import ModelFile, Threads, widths
from fma_core.errors import InvalidParameter, InvalidStrategy, NonFiniteResult, NoUpdates
from fma_core.in_memory import StoredRound
from tests.core import robust_references as references
from tests.core.steps import step_of
from tests.core.weights import fold_bytes, store

CLIP = {"name": "clip_norm", "max_norm": 2.0}
NNM = {"name": "nnm", "f": 3}
BUCKETING = {"name": "bucketing", "size": 2, "seed": 7}


@dataclass(frozen=True)
class FakeRows:
    """Rows of which only some things are known."""

    matrix: np.ndarray
    num_examples: tuple[int, ...] = ()
    round_number: int = 1

    @property
    def num_rows(self):
        return len(self.matrix)

    def gram(self):
        return self.matrix @ self.matrix.T

    def reduce(self, measure):
        return np.zeros(self.num_rows)

    def squared_norms(self):
        return np.diagonal(self.gram()).copy()


def normal(seed, rows=15, columns=6):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def mean_after(matrix, folder, *specs, **options):
    return step_of("mean", {}, matrix, folder, stages=specs, **options)


@pytest.mark.parametrize("n", [7, 15, 16])
def test_clipped_rows(n, tmp_path):
    matrix = normal(n, n)
    expected = references.clip_norm(matrix, 2.0)
    assert np.allclose(mean_after(matrix, tmp_path, CLIP), expected.mean(axis=0), rtol=1e-12)
    found = step_of("median", {}, matrix, tmp_path, stages=[CLIP])
    assert np.allclose(found, references.median(expected), rtol=1e-12)


@pytest.mark.parametrize("n", [9, 15, 16])
def test_mixed_rows(n, tmp_path):
    matrix = normal(n, n)
    expected = references.nnm(matrix, 3)
    assert np.allclose(mean_after(matrix, tmp_path, NNM), expected.mean(axis=0), rtol=1e-12)
    for rule, params, reference in (
        ("median", {}, references.median),
        ("krum", {"f": 3}, lambda rows: references.krum(rows, 3)),
        ("norm_bounded_mean", {}, references.norm_bounded_mean),
        (
            "centered_clipping",
            {"tau": 0.5, "iterations": 3},
            lambda r: references.centered_clipping(r, 0.5, 3),
        ),
    ):
        found = step_of(rule, params, matrix, tmp_path, stages=[NNM])
        assert np.allclose(found, reference(expected), rtol=1e-11)


def test_stages_are_applied_one_after_the_other(tmp_path):
    matrix = normal(3)
    clipped_first = references.nnm(references.clip_norm(matrix, 2.0), 3)
    found = step_of("krum", {"f": 3}, matrix, tmp_path, stages=[CLIP, NNM])
    assert np.allclose(found, references.krum(clipped_first, 3), rtol=1e-11)
    mixed_first = references.clip_norm(references.nnm(matrix, 3), 0.5)
    found = step_of("trimmed_mean", {}, matrix, tmp_path, stages=[NNM, {**CLIP, "max_norm": 0.5}])
    assert np.allclose(found, references.trimmed_mean(mixed_first, 1), rtol=1e-11)


@pytest.mark.parametrize(("n", "size"), [(15, 2), (16, 2), (15, 4), (5, 7), (6, 1), (1, 2)])
def test_each_update_is_in_one_bucket(n, size):
    row_map = Bucketing(size).map_rows(FakeRows(normal(n, n), tuple(range(n))))
    in_bucket = row_map.matrix != 0
    assert (in_bucket.sum(axis=0) == 1).all()
    sizes = in_bucket.sum(axis=1).tolist()
    assert sizes == [size] * (n // size) + [n % size] * (n % size > 0)
    assert np.allclose(row_map.matrix.sum(axis=1), 1)
    assert row_map.num_examples == tuple((in_bucket @ np.arange(n)).tolist())


def test_buckets_are_dealt_anew_in_each_round_and_the_same_again(tmp_path):
    matrix = normal(4)
    deals = {
        (seed, number): step_of(
            "median", {}, matrix, tmp_path, stages=[{**BUCKETING, "seed": seed}], round_number=number
        ).tobytes()
        for seed in (0, 1)
        for number in (1, 2)
    }
    assert len(set(deals.values())) == 4
    again = step_of("median", {}, matrix, tmp_path, stages=[{**BUCKETING, "seed": 1}], round_number=2)
    assert again.tobytes() == deals[1, 2]


def test_a_bucket_has_the_examples_of_its_updates(tmp_path):
    # One example each, and full buckets: their weighted mean is everybody's mean.
    matrix = normal(5, 16)
    found = mean_after(matrix, tmp_path, BUCKETING, num_examples=[1] * 16)
    assert np.allclose(found, matrix.mean(axis=0), rtol=1e-12)
    row_map = Bucketing(2, 7).map_rows(FakeRows(matrix, tuple(range(16))))
    expected = np.average(row_map.matrix @ matrix, axis=0, weights=row_map.num_examples)
    assert np.allclose(mean_after(matrix, tmp_path, BUCKETING, num_examples=[*range(16)]), expected)


def test_mixed_rows_keep_their_examples(tmp_path):
    matrix, num_examples = normal(6), [*range(15)]
    expected = np.average(references.nnm(matrix, 3), axis=0, weights=num_examples)
    assert np.allclose(mean_after(matrix, tmp_path, NNM, num_examples=num_examples), expected)


@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_buckets_are_not_those_that_the_choice_of_clients_would_give(seed):
    rows = FakeRows(np.zeros((40, 1)), num_examples=(1,) * 40, round_number=3)
    buckets = Bucketing(size=1, seed=seed).map_rows(rows).matrix.argmax(axis=1).tolist()
    assert sorted(buckets) == [*range(40)]
    for draw in range(3):
        stream = [seed, 3, draw]
        assert buckets != np.argsort(np.random.Generator(np.random.PCG64(stream)).random(40)).tolist()
        assert buckets != np.random.default_rng(stream).permutation(40).tolist()


def test_among_equal_updates_each_is_mixed_with_itself():
    row_map = NearestNeighbourMixing(1).map_rows(FakeRows(np.zeros((4, 2))))
    assert np.array_equal(row_map.matrix != 0, [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 1]])


def test_without_attackers_all_are_mixed(tmp_path):
    matrix = normal(7)
    found = step_of("krum", {"f": 3}, matrix, tmp_path, stages=[{"name": "nnm", "f": 0}])
    assert np.allclose(found, matrix.mean(axis=0), rtol=1e-11)


@pytest.mark.parametrize(
    ("stage", "min_rows", "expected"),
    [
        (ClipNorm(1.0), 5, 5),
        (NearestNeighbourMixing(3), 1, 7),
        (NearestNeighbourMixing(3), 9, 9),
        (Bucketing(2), 5, 9),
        (Bucketing(3), 1, 1),
        (Bucketing(1), 4, 4),
    ],
)
def test_how_many_updates_a_stage_needs(stage, min_rows, expected):
    assert stage.min_updates(min_rows) == expected


def test_the_smallest_round_gives_the_rule_what_it_needs(tmp_path):
    specs = [{"name": "nnm", "f": 1}, BUCKETING]
    assert Strategy(Krum(1), stages=(NearestNeighbourMixing(1), Bucketing(2))).min_updates == 9
    assert np.isfinite(step_of("krum", {"f": 1}, normal(8, 9), tmp_path, stages=specs)).all()
    with pytest.raises(NoUpdates, match="at least 9 updates, found 8"):
        step_of("krum", {"f": 1}, normal(8, 8), tmp_path, stages=specs)


@pytest.mark.parametrize("size", [1e6, 1e150, 1e200, 1e307])
@pytest.mark.parametrize("rule", ["median", "krum", "multi_krum", "geometric_median", "centered_clipping"])
@pytest.mark.parametrize("stage", [CLIP, NNM, {**BUCKETING, "size": 1}])
def test_enormous_updates_of_three_attackers_do_not_get_through(stage, rule, size, tmp_path):
    matrix = normal(9)
    matrix[[1, 8, 9]] = size * np.sign(normal(10, 3))
    honest = np.delete(matrix, [1, 8, 9], axis=0)
    params = {"f": 3} if "krum" in rule else {"tau": 3.0, "iterations": 2} if "clipping" in rule else {}
    found = step_of(rule, params, matrix, tmp_path, stages=[stage])
    assert np.linalg.norm(found) <= 2 * np.linalg.norm(honest, axis=1).max()


def test_an_update_whose_square_overflows_is_clipped_to_nothing(tmp_path):
    matrix = normal(11, 4)
    matrix[2] = 1e200
    expected = references.clip_norm(np.delete(matrix, 2, axis=0), 2.0).sum(axis=0) / 4
    assert np.allclose(mean_after(matrix, tmp_path, CLIP), expected, rtol=1e-12)


def test_a_round_of_nothing_but_overflowing_squares_fails(tmp_path):
    with pytest.raises(NonFiniteResult, match="too large or too far apart"):
        step_of("krum", {"f": 3}, np.full((15, 4), 1e200), tmp_path, stages=[NNM])


def test_updates_that_change_nothing_are_left_alone(tmp_path):
    for stage in (CLIP, NNM, BUCKETING):
        assert mean_after(np.zeros((15, 4)), tmp_path, stage).tolist() == [0] * 4


@pytest.mark.parametrize("spec", [CLIP, NNM, BUCKETING])
def test_threads_and_blocks_change_no_bit(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(widths, "STREAM_COLUMNS", 300)
    monkeypatch.setattr(widths, "MATRIX_VALUES", 100 * 15)
    monkeypatch.setattr(widths, "GRAM_VALUES", 200 * 15)
    matrix = normal(12, columns=2_003)
    for rule in ("mean", "median"):
        found = {
            step_of(rule, {}, matrix, tmp_path, dtype="float32", stages=[spec], **options).tobytes()
            for options in ({}, {"executor": Threads(2)}, {"executor": Threads(5)})
        }
        assert len(found) == 1


def test_clipping_is_of_what_was_changed_and_mixing_needs_no_start(tmp_path):
    weights = 100 + normal(13)
    rows = [{"w": row} for row in weights]
    spec, updates = Spec.of(rows[0]), store(tmp_path, [{"w": row} for row in weights])
    (tmp_path / "start").write_bytes(encode({"w": np.full(6, 100.0)}))
    clipped = fold_bytes(
        updates,
        spec,
        Strategy(Mean(), stages=(ClipNorm(2.0),)),
        tmp_path,
        start=ModelFile(tmp_path / "start", "start"),
    )
    expected = 100 + references.clip_norm(weights - 100, 2.0).mean(axis=0)
    assert np.allclose(np.frombuffer(clipped[-48:]), expected, rtol=1e-14)
    strategy = Strategy(Median(), stages=(NearestNeighbourMixing(3), Bucketing(2)))
    assert not strategy.needs_start
    assert Strategy(Median(), stages=(ClipNorm(2.0),)).needs_start


def test_what_must_know_whose_a_row_is_takes_no_mixed_rows():
    for stage in (NNM, BUCKETING):
        with pytest.raises(InvalidStrategy, match="mixes them"):
            Strategy.from_json(_strategy("fltrust", {"root_client": "0"}, stage))
    assert Strategy.from_json(_strategy("fltrust", {"root_client": "0"}, CLIP)).row_stages


def _strategy(name, params, stage):
    return {
        "aggregator": {"name": name, **params},
        "stages": [stage],
        "optimiser": None,
        "staleness": None,
        "update_kind": "weights",
    }


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("clip_norm", {}),
        ("clip_norm", {"max_norm": 0}),
        ("nnm", {"f": -1}),
        ("bucketing", {"size": 0}),
        ("bucketing", {"seed": -1}),
    ],
)
def test_impossible_parameters_are_refused(name, params):
    with pytest.raises(InvalidParameter):
        stages.build(name, params)


@pytest.mark.parametrize(
    "rule", [Median(), TrimmedMean(beta=0.2), Bulyan(f=1), MultiKrum(f=1), GeometricMedian()]
)
@pytest.mark.parametrize("stage", [NearestNeighbourMixing(f=1), Bucketing(size=2)])
def test_mixed_rows_have_the_same_bits_whatever_the_width_of_blocks(rule: Any, stage: Any) -> None:
    rng = np.random.default_rng(0)
    sent = [{"w": rng.normal(size=1_501)} for _ in range(14)]
    with StoredRound(Strategy(rule, stages=(stage,)), sent, start={"w": np.zeros(1_501)}) as stored:
        found = [stored.fold(block_columns=width).model for width in (None, 1, 64, 100, 777, 10**6)]

    assert found == [found[0]] * 6
