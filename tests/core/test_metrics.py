import json
import math
import sys
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fma_core.metrics import MAX_NAME_LENGTH, MAX_NAMES, STATISTICS, merge, numbers_of

values = st.floats(allow_nan=False, allow_infinity=False)
weighted = st.lists(st.tuples(st.integers(1, 2**53), values), min_size=1, max_size=20)


def test_docstring_tells_the_truth() -> None:
    merged = merge([(300, {"loss": 0.5, "eval": {"f1": 0.9}}), (100, {"loss": 0.7})])

    assert merged["loss"] == pytest.approx(
        {"mean": 0.55, "min": 0.5, "max": 0.7, "p5": 0.51, "p50": 0.6, "p95": 0.69, "count": 2, "weight": 400}
    )
    assert merged["eval.f1"]["count"] == 1


def test_mean_is_that_of_the_pooled_examples() -> None:
    rng = np.random.default_rng(3)
    shares = [rng.normal(size=size) for size in (5, 80, 331)]

    merged = merge((len(share), {"x": float(share.mean())}) for share in shares)

    assert merged["x"]["mean"] == pytest.approx(np.concatenate(shares).mean(), rel=1e-12)


@given(weighted)
def test_statistics_are_numpys(rows: list[tuple[int, float]]) -> None:
    found = merge((weight, {"x": value}) for weight, value in rows)["x"]

    column = np.array([value for _, value in rows])
    assert tuple(found) == STATISTICS
    assert (found["min"], found["max"], found["count"]) == (column.min(), column.max(), len(rows))
    assert all(found["min"] <= found[name] <= found["max"] for name in ("mean", "p5", "p50", "p95"))
    if np.abs(column).max() < 1e150:
        expected = np.percentile(column, [5, 50, 95])
        scale = max(1e-300, float(np.abs(column).max()))
        np.testing.assert_allclose(
            [found["p5"], found["p50"], found["p95"]], expected, atol=1e-12 * scale, rtol=0
        )
        weights = np.array([float(weight) for weight, _ in rows])
        assert found["mean"] == pytest.approx(np.average(column, weights=weights), abs=1e-12 * scale)


@given(weighted, st.randoms(use_true_random=False))
def test_order_of_the_rows_does_not_matter(rows: list[tuple[int, float]], random: Random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)

    assert merge((w, {"x": x}) for w, x in rows) == merge((w, {"x": x}) for w, x in shuffled)


def test_shares_that_add_up_to_more_than_1_do_not_overflow() -> None:
    largest = sys.float_info.max
    for sign in (1, -1):
        rows = [(1, sign * largest / 2), (2**53, sign * largest)]
        assert merge((w, {"x": x}) for w, x in rows)["x"]["mean"] == sign * largest


def test_numbers_at_the_end_of_the_range_stay_finite() -> None:
    merged = merge([(2**53, {"x": 1.7e308}), (2**53, {"x": -1.7e308}), (1, {"x": 1.7e308})])

    assert all(math.isfinite(value) for value in merged["x"].values())


def test_only_finite_numbers_are_numbers_of() -> None:
    metrics = json.loads(
        '{"loss": 1, "ok": true, "note": "x", "none": null, "curve": [1, 2], "deep": {"a": {"b": 2.5}}}'
    )
    metrics |= {"nan": math.nan, "huge": 10**400}

    assert numbers_of(metrics) == {"loss": 1.0, "deep.a.b": 2.5}


def test_one_client_cannot_crowd_out_the_names_of_the_others() -> None:
    crowd = {f"a{number:05}": 1.0 for number in range(10 * MAX_NAMES)}
    merged = merge([(1, crowd), (1, {"loss": 0.5}), (1, {"loss": 0.7})])

    assert len(merged) == MAX_NAMES
    assert merged["loss"]["count"] == 2


def test_a_name_has_a_longest_length() -> None:
    assert numbers_of({"x" * (MAX_NAME_LENGTH + 1): 1.0, "y": 1.0}) == {"y": 1.0}


def test_nothing_gives_nothing() -> None:
    assert merge([]) == {}
    assert merge([(3, {})]) == {}


@pytest.mark.parametrize("said", [None, 3, "0.5", [0.5], [{"loss": 0.5}]])
def test_what_is_no_object_has_no_numbers(said: object) -> None:
    assert numbers_of(said) == {}
