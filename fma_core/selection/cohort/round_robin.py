"""The selector of clients in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fma_core.selection.candidate import PastRound
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors

# The end of each turn follows from the end of the turn before it. A missing beginning does little harm: two readers
# that begin at different rounds agree after a few turns, unless a turn takes all clients.
LONG_ENOUGH = 50


@selectors.register("round_robin")
@dataclass(frozen=True)
class RoundRobin(Selector):
    """The next clients by name, after those of the last round; after the last client, the first again.

    A client that is not eligible at its turn is skipped, and waits for its next turn.

    >>> from fma_core.selection import Candidate, PastRound, select
    >>> clients, past = [Candidate("a"), Candidate("b"), Candidate("c")], [PastRound(1, chosen=("a", "b"))]
    >>> select(clients, selector=RoundRobin(), num=2, seed=0, round_number=2, past=past).chosen
    ('a', 'c')
    """

    source: ClassVar[str] = "fma"

    @property
    def num_past(self) -> int | None:
        return LONG_ENOUGH

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        last = _last_of(pool.past)
        names = [candidate.client for candidate in pool.candidates]
        in_turn = [name for name in names if name > last] + [name for name in names if name <= last]
        return Choice(frozenset(in_turn[: pool.num_wanted]))


def _last_of(past: Sequence[PastRound]) -> str:
    """The name at which the last turn ended, or "". A round with names up to its start has begun again at the first."""
    last = ""
    for played in past:
        if played.chosen:
            around = [name for name in played.chosen if name <= last]
            last = max(around or played.chosen)
    return last
