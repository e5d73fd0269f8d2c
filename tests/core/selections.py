"""Candidates and histories to choose from, and a selector of each name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from hypothesis import strategies as st

from fma_core.selection import (
    Candidate,
    Everyone,
    FedCS,
    LeastRecentlyUsed,
    Oort,
    PastRound,
    Poisson,
    PowerOfChoice,
    Random,
    RoundRobin,
    Selector,
    Stratified,
    TiFL,
    Weighted,
)

SELECTORS: dict[str, Selector] = {
    "everyone": Everyone(),
    "fedcs": FedCS(deadline_s=100.0, model_bytes=1_000_000, share=0.5),
    "least_recently_used": LeastRecentlyUsed(),
    "oort": Oort(pacer_step_s=1.0, pacer_window=2),
    "poisson": Poisson(q=0.3),
    "power_of_choice": PowerOfChoice(),
    "random": Random(),
    "round_robin": RoundRobin(),
    "stratified": Stratified(),
    "tifl": TiFL(tiers=3, interval=2, credits=(3, 3, 3)),
    "weighted": Weighted(),
}


@cache
def candidates_of(num: int) -> list[Candidate]:
    """Clients with every fact known, in no order of size or speed."""
    drawn = np.random.default_rng(1).random((num, 4))
    return [
        Candidate(
            f"c{index:06}",
            tags=frozenset({("red", "green", "blue")[index % 3]}),
            organisation=f"o{index % 7}",
            num_examples=1 + int(100 * examples),
            rounds_since_turn=1 + index % 5,
            seconds_since_turn=60.0 * (1 + index % 5),
            times_chosen=index % 4,
            times_answered=index % 4,
            loss=float(loss),
            loss_rms=float(1.1 * loss),
            round_s=float(10 + 50 * seconds),
            upload_mbps=float(1 + 20 * speed),
            download_mbps=float(2 + 40 * speed),
        )
        for index, (examples, loss, seconds, speed) in enumerate(drawn)
    ]


def _amount(most: float) -> st.SearchStrategy[float | None]:
    return st.none() | st.floats(0, most) | st.just(float("nan"))


def drawn_candidates() -> st.SearchStrategy[list[Candidate]]:
    """Clients of which some facts are unknown, and some are nonsense that a client might report."""
    candidates = st.builds(
        Candidate,
        st.text("abcdef", min_size=1, max_size=3),
        tags=st.frozensets(st.sampled_from(["europe", "asia", "phone"])),
        organisation=st.sampled_from([None, "north", "south"]),
        num_examples=st.none() | st.integers(0, 1000),
        rounds_since_turn=st.none() | st.integers(1, 20),
        times_chosen=st.integers(0, 5),
        loss=_amount(1e30) | st.just(float("inf")),
        loss_rms=_amount(1e300),
        round_s=_amount(1e6),
        upload_mbps=_amount(1e4),
        download_mbps=_amount(1e4),
    )
    return st.lists(candidates, max_size=12, unique_by=lambda each: each.client)


def drawn_past(clients: Sequence[str]) -> st.SearchStrategy[list[PastRound]]:
    known = st.sampled_from([*clients, "gone"])
    chosen = st.lists(st.tuples(st.lists(known, unique=True, max_size=5), st.floats(0, 5)), max_size=8)
    return chosen.map(
        lambda rounds: [
            PastRound(number, tuple(names), tuple(names[:3]), 10.0, {"loss": loss} if number % 3 else {})
            for number, (names, loss) in enumerate(rounds, start=1)
        ]
    )
