"""Candidates and histories to choose from, and a selector of each name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

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
from fma_core.testing.drawn_candidates import known_candidates

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


candidates_of = cache(known_candidates)


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
