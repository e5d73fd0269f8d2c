"""Follow the rounds of a model: wait while nothing happens, and miss none."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice, takewhile
from typing import Any

from fma_connect.exceptions import ConnectionFailed, ServerFailed, TooManyRequests
from fma_connect.retry import RetryPolicy

__all__ = ["finished_rounds"]

FINISHED = frozenset({"published", "cancelled", "failed"})
# The long poll returns at once for an aggregate; a failed round has none and is seen up to this much later.
LONGEST_WAIT_S = 10
# At most two rounds of a model are unfinished at a time; a few more cover a burst between two calls.
RECENT = 20
SHORTEST_PAUSE_S = 0.2
PAUSES = RetryPolicy(first_delay_s=0.5, max_delay_s=10.0)

Round = dict[str, Any]


def finished_rounds(
    newest_first: Callable[[], Iterable[Round]],
    await_aggregate: Callable[[int, int], None],
    *,
    after_round: int | None,
    timeout_s: float | None,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
    rng: random.Random,
    within: Callable[[float | None], AbstractContextManager[None]] = lambda remaining_s: nullcontext(),
) -> Iterator[Round]:
    """Yield each finished round once, in the order of their numbers.

    newest_first: gives the rounds, lazily. await_aggregate(aggregate, wait_s): returns when there is a newer aggregate,
    or after wait_s. within(remaining_s): limits the calls in its `with`.
    """
    ends_at = None if timeout_s is None else clock() + timeout_s
    ledger: _Ledger | None = None
    quiet_turns = 0
    while True:  # without `timeout_s` for as long as the caller iterates; each call has its own limit
        try:
            with within(None if ends_at is None else ends_at - clock()):
                if ledger is None:
                    ledger = _Ledger.starting(newest_first(), after_round)
                news = ledger.news(newest_first())
        except (ConnectionFailed, ServerFailed, TooManyRequests):
            # Each call has been retried for its own time limit. A watch waits for a server that was there before; one
            # that has never answered is probably a wrong address, which must be reported.
            if ledger is None or _is_over(ends_at, clock):
                raise
            news = []
        yield from news
        if _is_over(ends_at, clock):
            return
        quiet_turns = 0 if news else quiet_turns + 1
        remaining_s = LONGEST_WAIT_S if ends_at is None else ends_at - clock()
        pause_s = SHORTEST_PAUSE_S + PAUSES.delay_s(max(quiet_turns, 1), rng)
        with within(None if ends_at is None else remaining_s):
            was_held_back = _held_back(
                await_aggregate, ledger.newest_aggregate, int(min(LONGEST_WAIT_S, remaining_s)), clock
            )
        if not was_held_back:
            remaining_s = LONGEST_WAIT_S if ends_at is None else ends_at - clock()
            sleep(max(0.0, min(pause_s, remaining_s)))


class _Ledger:
    """The finished rounds that have been reported."""

    def __init__(self, floor: int, reported: set[int]) -> None:
        self.newest_aggregate = 0
        # All rounds up to the floor have been reported, and these above it.
        self._floor = floor
        self._reported = reported

    @classmethod
    def starting(cls, newest_first: Iterable[Round], after_round: int | None) -> _Ledger:
        if after_round is not None:
            return cls(after_round, set())
        recent = list(islice(newest_first, RECENT))
        old_news = {round_["number"] for round_ in recent if round_["state"] in FINISHED}
        return cls(min((round_["number"] for round_ in recent), default=1) - 1, old_news)

    def news(self, newest_first: Iterable[Round]) -> list[Round]:
        rounds = list(takewhile(lambda round_: round_["number"] > self._floor, newest_first))
        aggregates = [round_["aggregate"] for round_ in rounds if isinstance(round_.get("aggregate"), int)]
        self.newest_aggregate = max([self.newest_aggregate, *aggregates])
        finished = [
            r for r in reversed(rounds) if r["state"] in FINISHED and r["number"] not in self._reported
        ]
        self._reported |= {round_["number"] for round_ in finished}
        while self._floor + 1 in self._reported:
            self._floor += 1
            self._reported.discard(self._floor)
        return finished


def _is_over(ends_at: float | None, clock: Callable[[], float]) -> bool:
    return ends_at is not None and clock() >= ends_at


def _held_back(
    await_aggregate: Callable[[int, int], None], after: int, wait_s: int, clock: Callable[[], float]
) -> bool:
    """Whether the server delayed its answer, so that the client needs no pause of its own."""
    asked_at = clock()
    try:
        await_aggregate(after, wait_s)
    except (ConnectionFailed, ServerFailed, TooManyRequests):
        return False
    return wait_s > 0 and clock() - asked_at >= wait_s / 2
