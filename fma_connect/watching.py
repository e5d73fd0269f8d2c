"""Follow the rounds of a model: wait while nothing happens, and miss none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice, takewhile
from typing import Any

from fma_connect.exceptions import ConnectionFailed, ServerFailed, TooManyRequests
from fma_connect.transport import Transport
from fma_connect.waiting import Waiting

__all__ = ["finished_rounds"]

FINISHED = frozenset({"published", "cancelled", "failed"})
# The long poll returns at once for an aggregate; a failed round has none and is seen up to this much later.
LONGEST_WAIT_S = 10
# At most two rounds of a model are unfinished at a time; a few more cover a burst between two calls.
RECENT = 20

Round = dict[str, Any]


def finished_rounds(
    newest_first: Callable[[], Iterable[Round]],
    await_aggregate: Callable[[int, float], None],
    *,
    after_round: int | None,
    timeout_s: float | None,
    transport: Transport,
) -> Iterator[Round]:
    """Yield each finished round once, in the order of their numbers.

    newest_first: gives the rounds, lazily. await_aggregate(aggregate, wait_s): returns when there is a newer aggregate,
    or after wait_s.
    """
    waiting = Waiting(transport, timeout_s=timeout_s, longest_s=LONGEST_WAIT_S)
    ledger: _Ledger | None = None
    while True:  # without `timeout_s` for as long as the caller iterates; each call has its own limit
        try:
            with waiting.promise():
                if ledger is None:
                    ledger = _Ledger.starting(newest_first(), after_round)
                news = ledger.news(newest_first())
        except (ConnectionFailed, ServerFailed, TooManyRequests):
            # Each call has been retried for its own time limit. A watch waits for a server that was there before; one
            # that has never answered is probably a wrong address, which must be reported.
            if ledger is None or waiting.is_over:
                raise
            news = []
        yield from news
        if waiting.is_over:
            return
        if news:
            waiting.had_news()
        waiting.ask(partial(await_aggregate, ledger.newest_aggregate))
        waiting.pause()


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
