"""Pace steering: small populations meet, large ones are spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fma_core.selection.pace import pace_rng, retry_after_s


def told(num_clients: int, until_s: float | None) -> list[float]:
    return [
        retry_after_s(pace_rng(7, 3, f"client{index}"), num_clients=num_clients, until_s=until_s)
        for index in range(num_clients)
    ]


def test_a_small_population_meets_when_the_round_ends() -> None:
    found = told(20, 600.0)

    assert min(found) >= 600
    assert max(found) < 601


def test_a_large_population_is_spread_evenly() -> None:
    found = told(20_000, 60.0)
    counts, _ = np.histogram(found, bins=80, range=(60, 860))

    # 25 calls a second in each bin of 10 s: half of what the server bears, which is for those that keep asking.
    assert counts.sum() == 20_000
    assert counts.min() == pytest.approx(250, abs=80)
    assert counts.max() == pytest.approx(250, abs=80)


def test_a_million_clients_that_keep_asking_are_no_more_than_the_server_bears() -> None:
    rng = np.random.default_rng(0)
    waits = [retry_after_s(rng, num_clients=1_000_000, max_calls_per_s=50) for _ in range(2000)]

    assert 1_000_000 / np.mean(waits) == pytest.approx(50, rel=0.05)


@given(st.integers(1, 10**9), st.none() | st.floats(-1e9, 1e9))
def test_nobody_asks_at_once_and_the_bounds_hold(num_clients: int, until_s: float | None) -> None:
    found = retry_after_s(pace_rng(0, 1, "a"), num_clients=num_clients, until_s=until_s)

    assert 5 <= found <= min(86_400, 3600 + 2 * num_clients / 50)


@given(st.integers(1, 10**9), st.none() | st.floats(-1e9, 1e9), st.floats(0, 9e3), st.floats(0, 1e5))
def test_no_answer_is_beyond_the_bounds(
    num_clients: int, until_s: float | None, min_s: float, more_s: float
) -> None:
    rng = pace_rng(0, 1, "a")
    found = retry_after_s(rng, num_clients=num_clients, until_s=until_s, min_s=min_s, max_s=min_s + more_s)

    assert min_s <= found <= min_s + more_s


@pytest.mark.parametrize("until_s", [None, 60.0, 1e6])
def test_a_window_that_does_not_fit_is_filled_evenly(until_s: float | None) -> None:
    # Cut off at the bound, nine clients of ten would come back in the same moment.
    rng = np.random.default_rng(0)
    found = [
        retry_after_s(rng, num_clients=1_000_000, until_s=until_s, min_s=0.0, max_s=3600.0)
        for _ in range(9000)
    ]
    counts, _ = np.histogram(found, bins=9, range=(0, 3600))

    assert counts.sum() == 9000
    assert counts.min() > 850


def test_a_client_is_told_the_same_moment_again_and_others_another() -> None:
    def moment(seed: int, round_number: int, client: str) -> float:
        return retry_after_s(pace_rng(seed, round_number, client), num_clients=1000, until_s=100)

    assert moment(1, 1, "a") == moment(1, 1, "a")
    assert len({moment(1, 1, "a"), moment(1, 1, "b"), moment(1, 2, "a"), moment(2, 1, "a")}) == 4
