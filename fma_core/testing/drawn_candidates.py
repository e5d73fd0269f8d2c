"""Clients and histories for tests of filters and selectors: the same in every process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fma_core.selection import Candidate, PastRound, Pool

NONSENSE = (float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1e308, 5e-324)


def known_candidates(num: int) -> list[Candidate]:
    """Clients that report all facts, in no order of size, speed or loss."""
    drawn = np.random.default_rng(1).random((num, 6))
    return [
        Candidate(
            f"c{index:06}",
            tags=frozenset({("red", "green", "blue")[index % 3]}),
            organisation=f"o{index % 7}",
            num_examples=1 + int(100 * examples),
            rounds_since_turn=1 + index % 5,
            seconds_since_turn=60.0 * (1 + index % 5),
            times_chosen=1 + index % 3,
            times_answered=1 + index % 2,
            loss=float(loss),
            loss_rms=float(1.1 * loss),
            round_s=float(10 + 50 * seconds),
            ping_ms=float(5 + 100 * ping),
            upload_mbps=float(1 + 20 * speed),
            download_mbps=float(2 + 40 * speed),
            free_memory_bytes=2**30,
            battery=float(battery),
            is_charging=index % 2 == 0,
            is_unmetered=index % 3 == 0,
            version=f"1.{index % 12}",
            seconds_since_seen=float(10 * (index % 9)),
        )
        for index, (examples, loss, seconds, ping, speed, battery) in enumerate(drawn)
    ]


def unknown_candidates(num: int) -> list[Candidate]:
    """Clients without known facts."""
    return [Candidate(f"u{index:06}") for index in range(num)]


def nonsense_candidates() -> list[Candidate]:
    """Clients that report impossible facts."""
    return [
        Candidate(
            f"n{index}",
            num_examples=0 if index % 2 else 10**18,
            rounds_since_turn=index,
            loss=value,
            loss_rms=value,
            round_s=value,
            ping_ms=value,
            download_mbps=value,
            upload_mbps=value,
            battery=value,
            version="\x00" * 500,
            seconds_since_seen=value,
        )
        for index, value in enumerate(NONSENSE)
    ]


def drawn_past(num_rounds: int, candidates: list[Candidate]) -> tuple[PastRound, ...]:
    """Rounds with some of these clients and one that has left; some rounds have no metric or no answer."""
    rng = np.random.default_rng(2)
    names = [*(candidate.client for candidate in candidates), "gone"]
    rounds = []
    for number in range(1, num_rounds + 1):
        chosen = tuple(sorted({names[index] for index in rng.integers(0, len(names), 5)}))
        metrics = {"loss": float(rng.random())} if number % 4 else {}
        rounds.append(PastRound(number, chosen, chosen[: number % 3], 10.0, metrics))
    return tuple(rounds)


def drawn_pools() -> Iterator[Pool]:
    """Pools of all kinds: first and later rounds, one and many clients, with all, some, no and impossible facts."""
    known, unknown = known_candidates(40), unknown_candidates(10)
    for candidates in (known, unknown, known + unknown, known[:1], unknown[:1], nonsense_candidates()):
        ordered = tuple(sorted(candidates, key=lambda each: each.client))
        for num, num_rounds in ((1, 0), (6, 0), (6, 55), (None, 12), (1000, 12)):
            yield Pool(ordered, num, num_rounds + 1, drawn_past(num_rounds, candidates))
