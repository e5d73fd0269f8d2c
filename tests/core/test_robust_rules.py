"""The robust rules: against the golden vector, their papers line by line, and the laws that they obey."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fma_core.aggregation.aggregators import GeometricMedian, Krum, TrimmedMean, aggregators
from fma_core.aggregation.aggregators.distances import squared_distances
from fma_core.aggregation.aggregators.krum import sorted_neighbours, sums_of_first
from fma_core.arrays.casting import cast
from fma_core.arrays.codecs.safetensors import decode, encode
from fma_core.arrays.dtypes import NUMPY_DTYPES
from fma_core.arrays.spec import Spec
from fma_core.engine import ModelFile, Serial, Threads, widths
from fma_core.errors import InvalidParameter, NonFiniteResult, NoUpdates
from fma_core.in_memory import Update, fold_arrays
from tests.core import robust_references as references
from tests.core.steps import step_of
from tests.core.weights import fold_bytes, store

# The golden vector of the design: agreed by several independent libraries.
GOLDEN = np.random.default_rng(42).normal(size=(9, 5))
GOLDEN[7] += 20
GOLDEN[8] -= 15

# Each rule that can be told of three attackers among fifteen, and the parameters that have the unit of the weights.
RULES: dict[str, dict[str, Any]] = {
    "median": {},
    "trimmed_mean": {"beta": 0.2},
    "krum": {"f": 3},
    "multi_krum": {"f": 3},
    "bulyan": {"f": 3},
    "geometric_median": {"nu": 1e-6},
    "centered_clipping": {"tau": 3.0, "iterations": 3},
    "norm_bounded_mean": {"max_norm": None},
    "fltrust": {"root_client": "0"},
}
UNITS = {"nu", "tau", "max_norm"}
EQUIVARIANT = ("median", "trimmed_mean", "krum", "multi_krum", "bulyan", "geometric_median")
every_rule = pytest.mark.parametrize("name", RULES)


def normal(seed, rows=15, columns=6):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def step(name, matrix, folder, **options):
    return step_of(name, RULES[name], matrix, folder, **options)


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("median", {}, [-0.184862, 0.127840, 0.066031, 0.412733, -0.049926]),
        ("trimmed_mean", {"beta": 0.25}, [-0.042435, -0.011689, 0.070688, 0.412083, -0.086593]),
        ("krum", {"f": 2}, GOLDEN[5]),
        ("multi_krum", {"f": 2, "m": 7}, [0.089614, -0.045805, 0.088157, 0.339126, -0.252575]),
        ("multi_krum", {"f": 2}, [0.089614, -0.045805, 0.088157, 0.339126, -0.252575]),
        ("geometric_median", {}, [-0.106026, 0.102588, 0.111974, 0.387547, -0.131085]),
        (
            "centered_clipping",
            {"tau": 1.0, "iterations": 3},
            [-0.067783, 0.058402, 0.092886, 0.320216, -0.139544],
        ),
    ],
)
def test_golden_vector(name, params, expected, tmp_path):
    assert np.allclose(step_of(name, params, GOLDEN, tmp_path), expected, rtol=0, atol=1e-6)


def test_krum_scores_of_the_golden_vector():
    expected = [40.1854, 25.5335, 29.2925, 26.5748, 26.4426, 20.3261, 54.6414, 9832.674, 5412.899]
    values, _ = sorted_neighbours(squared_distances(GOLDEN @ GOLDEN.T))
    assert np.allclose(sums_of_first(values, 5), expected, atol=1e-3)


@pytest.mark.parametrize("n", [15, 16, 23])
@pytest.mark.parametrize(
    ("name", "params", "reference"),
    [
        ("median", {}, references.median),
        ("trimmed_mean", {"beta": 0.2}, lambda rows: references.trimmed_mean(rows, len(rows) // 5)),
        ("krum", {"f": 3}, lambda rows: references.krum(rows, 3)),
        ("krum", {"f": 0}, lambda rows: references.krum(rows, 0)),
        ("multi_krum", {"f": 3}, lambda rows: references.multi_krum(rows, 3)),
        ("multi_krum", {"f": 3, "m": 2}, lambda rows: references.multi_krum(rows, 3, 2)),
        ("bulyan", {"f": 3}, lambda rows: references.bulyan(rows, 3)),
        ("bulyan", {"f": 1}, lambda rows: references.bulyan(rows, 1)),
        ("bulyan", {"f": 0}, lambda rows: rows.mean(axis=0)),
        ("centered_clipping", {"tau": 2.5}, lambda rows: references.centered_clipping(rows, 2.5, 1)),
        (
            "centered_clipping",
            {"tau": 0.5, "iterations": 7},
            lambda rows: references.centered_clipping(rows, 0.5, 7),
        ),
        ("norm_bounded_mean", {}, references.norm_bounded_mean),
        ("norm_bounded_mean", {"max_norm": 1.5}, lambda rows: references.norm_bounded_mean(rows, 1.5)),
        ("fltrust", {"root_client": "4"}, lambda rows: references.fltrust(rows, 4)),
    ],
)
def test_the_paper_line_by_line(name, params, reference, n, tmp_path):
    matrix = normal(n, n)
    assert np.allclose(step_of(name, params, matrix, tmp_path), reference(matrix), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_near_the_geometric_median_is_nearer_to_all(seed, tmp_path):
    matrix, num_examples = normal(seed, 8), [3, 1, 4, 1, 5, 9, 2, 6]
    found = step_of("geometric_median", {"tolerance": 1e-10}, matrix, tmp_path, num_examples=num_examples)
    least = references.distance_sum(found, matrix, num_examples)
    for direction in normal(seed + 100, 20):
        for length in (1e-3, 1e-1):
            assert references.distance_sum(found + length * direction, matrix, num_examples) > least


# Laws.


@every_rule
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), order=st.permutations(range(1, 15)))
def test_the_order_of_updates_changes_nothing(name, seed, order, tmp_path_factory):
    # What is summed is summed in another order.
    matrix, folder = normal(seed), tmp_path_factory.mktemp("f")
    order = [0, *order]  # the first is FLTrust's root
    expected, found = step(name, matrix, folder), step(name, matrix[order], folder)
    atol = 1e-4 if name == "geometric_median" else 1e-12  # whose search may end a step earlier
    assert np.allclose(found, expected, rtol=0, atol=atol)
    if name in ("median", "trimmed_mean", "krum", "bulyan"):
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", EQUIVARIANT)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), shift=st.integers(-1000, 1000))
def test_what_all_share_is_added_to_the_answer(name, seed, shift, tmp_path_factory):
    matrix, folder = normal(seed), tmp_path_factory.mktemp("f")
    vector = shift * normal(seed + 1, 1)[0]
    expected = step(name, matrix, folder) + vector
    atol = 1e-4 if name == "geometric_median" else 1e-10
    assert np.allclose(step(name, matrix + vector, folder), expected, rtol=0, atol=atol)


def test_rules_say_rightly_whether_they_follow_a_shift():
    assert {name for name in RULES if aggregators.class_of(name).is_translation_equivariant} == {*EQUIVARIANT}


@every_rule
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), power=st.integers(-200, 200))
def test_a_power_of_two_times_all_is_that_times_the_answer_bit_for_bit(name, seed, power, tmp_path_factory):
    matrix, folder, factor = normal(seed), tmp_path_factory.mktemp("f"), 2.0**power
    scaled = {
        key: value * factor if key in UNITS and value is not None else value
        for key, value in RULES[name].items()
    }
    found = step_of(name, scaled, matrix * factor, folder)
    assert found.tobytes() == (step(name, matrix, folder) * factor).tobytes()


@pytest.mark.parametrize("size", [1e6, 1e30, 1e150, 1e200, 1e307])
@pytest.mark.parametrize("together", [True, False])
@every_rule
def test_three_attackers_of_fifteen_leave_the_answer_with_the_honest(name, together, size, tmp_path):
    honest = normal(3)
    matrix = honest.copy()
    matrix[[2, 7, 14]] = size if together else size * np.sign(normal(4, 3))
    honest = np.delete(honest, [2, 7, 14], axis=0)
    found = step(name, matrix, tmp_path)
    longest = np.linalg.norm(honest, axis=1).max()
    if name in ("geometric_median", "centered_clipping", "norm_bounded_mean", "fltrust"):
        # 2 (1 − α) / (1 − 2α) for a share α of attackers is the geometric median's bound, and the others' is smaller.
        assert np.linalg.norm(found) <= longest * 2 * (1 - 0.2) / (1 - 0.4)
    else:
        assert (honest.min(axis=0) <= found).all()
        assert (found <= honest.max(axis=0)).all()


@pytest.mark.parametrize("size", [1e6, 1e30, 1e150, 1e200])
def test_the_geometric_median_bears_attackers_with_almost_half_of_the_examples(size, tmp_path):
    matrix = normal(5)
    matrix[:7] = size
    found = step_of("geometric_median", {}, matrix, tmp_path)
    assert np.linalg.norm(found) <= np.linalg.norm(matrix[7:], axis=1).max() * 2 * (8 / 15) / (1 / 15)


@every_rule
def test_threads_and_blocks_change_no_bit(name, tmp_path, monkeypatch):
    monkeypatch.setattr(widths, "STREAM_COLUMNS", 300)
    monkeypatch.setattr(widths, "MATRIX_VALUES", 100 * 15)
    monkeypatch.setattr(widths, "GRAM_VALUES", 200 * 15)
    matrix = normal(6, columns=2_003)
    found = {
        step(name, matrix, tmp_path, dtype="float32", executor=executor).tobytes()
        for executor in (Serial(), Threads(1), Threads(2), Threads(5))
    }
    assert len(found) == 1


# Edges.


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "geometric_median", "norm_bounded_mean"])
def test_a_single_update_comes_out_as_it_is(name, tmp_path):
    matrix = normal(7, 1)
    assert step(name, matrix, tmp_path).tobytes() == matrix[0].tobytes()


@every_rule
def test_identical_updates_come_out_as_they_are(name, tmp_path):
    row = 0.1 * normal(8, 1)[0]  # shorter than centred clipping's bound
    assert np.allclose(step(name, np.tile(row, (15, 1)), tmp_path), row, rtol=1e-7)


@every_rule
def test_updates_that_change_nothing_give_a_step_of_zero(name, tmp_path):
    assert step(name, np.zeros((15, 4)), tmp_path).tolist() == [0] * 4
    assert step(name, np.zeros((15, 4)), tmp_path, dtype="float16").tolist() == [0] * 4


@every_rule
def test_denormal_updates_are_neither_nan_nor_lost(name, tmp_path):
    # Their squares underflow: FLTrust finds no angle, and gives no trust.
    found = step(name, np.full((15, 4), 3e-310), tmp_path)
    assert np.allclose(found, 0 if name == "fltrust" else 3e-310, rtol=0, atol=1e-322)
    found = step(name, np.full((15, 4), 3e-45), tmp_path, dtype="float32")
    assert np.array_equal(found, np.full(4, np.float32(3e-45), np.float64))


@pytest.mark.parametrize(
    ("name", "params", "minimum"),
    [
        ("median", {}, 1),
        ("trimmed_mean", {"beta": 0.49}, 1),
        ("krum", {"f": 0}, 3),
        ("krum", {"f": 2}, 7),
        ("multi_krum", {"f": 2}, 7),
        ("multi_krum", {"f": 2, "m": 3}, 7),
        ("multi_krum", {"f": 2, "m": 9}, 11),
        ("bulyan", {"f": 0}, 3),
        ("bulyan", {"f": 1}, 7),
        ("geometric_median", {}, 1),
        ("centered_clipping", {}, 1),
        ("norm_bounded_mean", {}, 1),
        ("fltrust", {"root_client": "0"}, 2),
    ],
)
def test_the_smallest_number_of_updates(name, params, minimum, tmp_path):
    assert aggregators.build(name, params).min_updates == minimum
    assert np.isfinite(step_of(name, params, normal(9, minimum), tmp_path)).all()
    with pytest.raises(NoUpdates, match=f"at least {minimum} updates, found {minimum - 1}"):
        step_of(name, params, normal(9, minimum)[1:], tmp_path) if minimum > 1 else _fold_nothing(
            name, params, tmp_path
        )


def _fold_nothing(name, params, folder):
    fold_bytes([], Spec.of({"w": np.ones(1)}), aggregators.build(name, params), folder)


def test_an_even_number_has_the_mean_of_the_two_in_the_middle(tmp_path):
    matrix = np.array([[1.0, 9, 0], [2, 7, 0], [4, 5, 1], [9, 1, 1]])
    assert step_of("median", {}, matrix, tmp_path).tolist() == [3, 6, 0.5]


@pytest.mark.parametrize(
    ("beta", "n", "k"),
    [(0.29, 100, 29), (0.1, 10, 1), (0.1, 29, 2), (0.0, 5, 0), (0.3, 10, 3), (1e-05, 10**5, 1)]
    + [(beta, n, 1) for beta in (1e-300, 0.1) for n in (3, 4, 9)]
    + [(beta, n, 0) for beta in (0.1, 0.49) for n in (1, 2)],
)
def test_the_number_left_out_follows_from_beta_as_it_is_written(beta, n, k):
    assert TrimmedMean(beta).num_trimmed(n) == k


TIES = [
    ("krum", {"f": 0}),
    ("krum", {"f": 1}),
    ("multi_krum", {"f": 1, "m": 2}),
    ("multi_krum", {"f": 2}),
    ("bulyan", {"f": 1}),
]


@pytest.mark.parametrize(("name", "params"), TIES)
@settings(max_examples=10)
@given(
    rows=st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=7, max_size=12),
    data=st.data(),
)
def test_the_order_of_updates_decides_between_no_equals(name, params, rows, data, tmp_path_factory):
    # On a small grid nearly every choice is one between equal distances; the sums of integers are exact.
    matrix, folder = np.array(rows, np.float64), tmp_path_factory.mktemp("f")
    expected = step_of(name, params, matrix, folder)
    for _ in range(3):
        found = step_of(name, params, matrix[data.draw(st.permutations(range(len(rows))))], folder)
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["krum", "multi_krum", "bulyan"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4], [2, 5, 4, 0, 3, 1]])
def test_the_order_of_updates_decides_not_even_between_corners(name, order, tmp_path):
    # All distances of a corner are those of all others: only what it holds tells it from them.
    corners = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, -1]])
    matrix = np.concatenate((corners, corners + 100))
    params = {"f": 2, "m": 3} if name == "multi_krum" else {"f": 2}
    expected = step_of(name, params, matrix, tmp_path)
    order = [*order, *(6 + index for index in order)]
    assert step_of(name, params, matrix[order], tmp_path).tobytes() == expected.tobytes()


@pytest.mark.parametrize("n", range(3, 12))
def test_the_default_trimmed_mean_of_few_updates_bears_one_attacker(n, tmp_path):
    honest = normal(n, n - 1)
    for attack in (1e6, -1e300):
        found = step_of("trimmed_mean", {}, np.concatenate((honest, np.full((1, 6), attack))), tmp_path)
        assert (honest.min(axis=0) <= found).all()
        assert (found <= honest.max(axis=0)).all()


def test_of_equal_scores_the_one_with_the_nearer_next_neighbours_is_chosen(tmp_path):
    # 7 and 7.5 are each other's nearest: a score of 0.25 both. The next is 4 from 7 and 4.5 from 7.5.
    matrix = np.array([[0.0], [1], [3], [7], [7.5], [20], [30]])
    assert step_of("krum", {"f": 2}, matrix, tmp_path).tolist() == references.krum(matrix, 2).tolist()
    for rows in (matrix, matrix[::-1], matrix[[3, 1, 6, 0, 4, 2, 5]]):
        assert step_of("bulyan", {"f": 1}, rows, tmp_path) == pytest.approx(35 / 6)
    for rows in ([0.0, 1, 5], [5.0, 1, 0], [1.0, 0, 5]):
        assert step_of("krum", {"f": 0}, np.array([rows]).T, tmp_path).tolist() == [1]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
def test_the_order_of_updates_decides_between_no_neighbours(order, tmp_path):
    # 0 is as far from −1 as from 1, and mixes with one of them.
    matrix = np.array([[-1.0, 3], [0, 3], [1, 3], [9, 3]])
    stages = [{"name": "nnm", "f": 1}]
    found = step_of("median", {}, matrix[order], tmp_path, stages=stages)
    expected = step_of("median", {}, matrix, tmp_path, stages=stages)
    assert found.tobytes() == expected.tobytes()


SPREAD = 1e-7
CLOSE: dict[str, tuple[dict[str, Any], Callable[[np.ndarray], np.ndarray]]] = {
    "krum": ({"f": 3}, lambda rows: references.krum(rows, 3)),
    "multi_krum": ({"f": 3}, lambda rows: references.multi_krum(rows, 3)),
    "bulyan": ({"f": 3}, lambda rows: references.bulyan(rows, 3)),
}


@pytest.mark.parametrize("far", [0.0, 1.0, 1e6, 1e200])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", CLOSE)
def test_updates_that_share_nearly_all_are_told_apart(name, seed, far, tmp_path):
    # The squares of whole weights leave two digits of these distances; attackers must not be what is measured from.
    params, reference = CLOSE[name]
    matrix = normal(seed + 1000, 1, 50) + SPREAD * normal(seed, 15, 50)
    matrix[[0, 6, 14]] += far * normal(seed + 2000, 3, 50)
    shared = matrix[3]
    # Rows whose squares overflow are infinitely far to the rule, and far enough for the reference.
    expected = reference(np.clip(matrix - shared, -1e9, 1e9))
    found = step_of(name, params, matrix, tmp_path)
    assert np.allclose(found - shared, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("rows", [2, 3, 15])
def test_the_geometric_median_of_updates_that_share_nearly_all_is_that_of_their_differences(rows, tmp_path):
    matrix = normal(23, 1, 50) + SPREAD * normal(24, rows, 50)
    found = step_of("geometric_median", {"nu": 1e-13}, matrix, tmp_path)
    expected = step_of("geometric_median", {"nu": 1e-13}, matrix - matrix[0], tmp_path)
    assert np.allclose(found - matrix[0], expected, rtol=1e-4, atol=1e-11)


def test_mixed_neighbours_share_nearly_all_too(tmp_path):
    matrix = normal(25, 1, 50) + SPREAD * normal(26, 15, 50)
    expected = references.median(references.nnm(matrix - matrix[0], 3))
    found = step_of("median", {}, matrix, tmp_path, stages=[{"name": "nnm", "f": 3}])
    assert np.allclose(found - matrix[0], expected, rtol=1e-7, atol=1e-15)


@pytest.mark.parametrize("name", ["krum", "multi_krum", "bulyan", "geometric_median", "norm_bounded_mean"])
def test_a_round_of_nothing_but_overflowing_squares_fails(name, tmp_path):
    with pytest.raises(NonFiniteResult, match="too large or too far apart"):
        step(name, np.full((15, 4), 1e200), tmp_path)


def test_the_largest_values_of_float32_are_measured_like_any_others(tmp_path):
    matrix = normal(10)
    matrix *= 3.4e38 / np.abs(matrix).max()
    found = step_of("krum", {"f": 3}, matrix, tmp_path, dtype="float32")
    expected = references.krum(matrix.astype(np.float32).astype(np.float64), 3)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["median", "krum", "bulyan", "centered_clipping"])
def test_small_floats_are_computed_in_float64_and_rounded_once(name, dtype, tmp_path):
    matrix = normal(11).astype(NUMPY_DTYPES[dtype]).astype(np.float64)
    found = step(name, matrix, tmp_path, dtype=dtype)
    assert np.array_equal(found, cast(step(name, matrix, tmp_path), dtype).astype(np.float64))


def test_examples_weigh_in_the_geometric_median_only(tmp_path):
    matrix, num_examples = normal(12), [*range(15)]
    for name in RULES:
        same = np.array_equal(
            step(name, matrix, tmp_path), step(name, matrix, tmp_path, num_examples=num_examples)
        )
        assert same == (name != "geometric_median")


def test_updates_without_examples_count_for_nothing_in_the_geometric_median(tmp_path):
    matrix = normal(13)
    found = step("geometric_median", matrix, tmp_path, num_examples=[1] * 10 + [0] * 5)
    assert np.allclose(found, step("geometric_median", matrix[:10], tmp_path), rtol=1e-12)
    with pytest.raises(NoUpdates, match="at least one example"):
        step("geometric_median", matrix, tmp_path, num_examples=[0] * 15)


@pytest.mark.parametrize("name", sorted(set(RULES) - {"geometric_median"}))
def test_no_examples_at_all_are_no_trouble_to_rules_that_do_not_ask(name, tmp_path):
    matrix = normal(14)
    found = step(name, matrix, tmp_path, num_examples=[0] * 15)
    assert np.array_equal(found, step(name, matrix, tmp_path))


def test_the_geometric_median_is_the_update_that_has_most_of_the_examples(tmp_path):
    matrix = normal(15, 5)
    found = step_of("geometric_median", {}, matrix, tmp_path, num_examples=[1, 1, 10, 1, 1])
    assert np.allclose(found, matrix[2], atol=1e-5)


def test_a_point_between_two_updates_is_their_geometric_median(tmp_path):
    matrix = normal(16, 2)
    assert np.allclose(step_of("geometric_median", {}, matrix, tmp_path), matrix.mean(axis=0))


def test_centred_clipping_comes_nearer_to_the_mean_with_every_iteration(tmp_path):
    matrix = normal(17) + 20
    misses = [
        np.linalg.norm(
            step_of("centered_clipping", {"tau": 5.0, "iterations": n}, matrix, tmp_path)
            - matrix.mean(axis=0)
        )
        for n in (1, 2, 4, 8, 30)
    ]
    assert all(later < earlier for earlier, later in pairwise(misses))
    assert misses[-1] < 1e-9


def test_fltrust_takes_no_step_when_nobody_agrees_with_the_root(tmp_path):
    root = normal(18, 1)[0]
    matrix = np.array([root, -root, -2 * root])
    assert step_of("fltrust", {"root_client": "0"}, matrix, tmp_path).tolist() == [0] * 6


def test_fltrust_cannot_do_without_its_root(tmp_path):
    rule = aggregators.build("fltrust", {"root_client": "the root"})
    assert rule.required_clients == ("the root",)
    with pytest.raises(NoUpdates, match="'the root'"):
        step_of("fltrust", {"root_client": "the root"}, normal(19), tmp_path)


def test_fltrust_looks_at_the_last_update_of_its_root(tmp_path):
    matrix = normal(20)
    clients = ["root", *"123", "root", *"567890abcd"]
    found = step_of("fltrust", {"root_client": "root"}, matrix, tmp_path, clients=clients)
    assert np.allclose(found, references.fltrust(matrix[1:], 3))


def test_distances_are_of_what_was_changed_and_not_of_whole_weights(tmp_path):
    # Of weights like 1e8 the squares differ in their last digits, if at all, when clients change a millionth.
    changed = normal(21) * 1e-6
    weights = np.full((16, 6), 1e8)
    weights[:15] += changed
    (tmp_path / "start").write_bytes(encode({"w": weights[15]}))
    rows = [{"w": row} for row in weights[:15]]
    start = ModelFile(tmp_path / "start", "start")
    found = decode(
        fold_bytes(
            store(tmp_path, rows), Spec.of(rows[0]), aggregators.build("krum", [3]), tmp_path, start=start
        )
    )
    expected = references.krum(weights[:15] - weights[15], 3)
    assert np.array_equal(found["w"], weights[15] + expected)


def test_integers_have_their_median_whatever_the_rule(tmp_path):
    rows = [{"w": row, "n": np.array([i, -i, i % 2])} for i, row in enumerate(normal(22))]
    for name in set(RULES) - {"fltrust"}:
        rule = aggregators.build(name, RULES[name])
        found = decode(fold_bytes(store(tmp_path, rows), Spec.of(rows[0]), rule, tmp_path))
        assert found["n"].tolist() == [7, -7, 0]


@pytest.mark.parametrize(
    ("name", "params", "at_fault"),
    [
        ("trimmed_mean", {"beta": 0.5}, "beta"),
        ("trimmed_mean", {"beta": -0.1}, "beta"),
        ("krum", {}, "f"),
        ("krum", {"f": -1}, "f"),
        ("multi_krum", {"f": 1, "m": 0}, "m"),
        ("bulyan", {"f": 1.5}, "f"),
        ("geometric_median", {"nu": 0}, "nu"),
        ("centered_clipping", {"tau": 0}, "tau"),
        ("centered_clipping", {"iterations": 0}, "iterations"),
        ("norm_bounded_mean", {"max_norm": 0}, "max_norm"),
        ("fltrust", {}, "root_client"),
    ],
)
def test_impossible_parameters_are_refused(name, params, at_fault):
    with pytest.raises(InvalidParameter) as raised:
        aggregators.build(name, params)
    assert raised.value.facts["parameter"] == at_fault


@every_rule
def test_rules_describe_themselves(name):
    description = aggregators.describe(name)
    assert description.source
    assert "arXiv" in description.source
    assert description.minimum
    assert len(description.description) > 30


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float64")])
def test_what_updates_hold_in_each_block_decides_between_equals(order, dtypes):
    values = [(1.0, 0.0), (0.0, 1.0), (10.0, 10.0)]
    updates = [
        {"a": np.array([values[i][0]], dtypes[0]), "b": np.array([values[i][1]], dtypes[1])} for i in order
    ]
    first = [{"a": np.array([a], dtypes[0]), "b": np.array([b], dtypes[1])} for a, b in values]
    found, expected = (fold_arrays(Krum(f=0), each) for each in (updates, first))
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


@pytest.mark.parametrize("length", [1e6, 1e9, 1e12, 1e100])
@pytest.mark.parametrize("examples", [1, 0])
def test_most_rows_of_few_examples_do_not_steer_the_geometric_median(length, examples):
    rows = [(0.0, 100), (1.0, 50), *[(length, examples)] * 3]
    updates = [Update({"w": np.array([value])}, num_examples=weight) for value, weight in rows]
    found = fold_arrays(GeometricMedian(), updates, start={"w": np.array([0.0])})
    assert abs(found["w"][0]) < 1e-4
