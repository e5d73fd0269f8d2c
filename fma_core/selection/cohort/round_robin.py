"""Clients in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fma_core.selection.candidate import PastRound
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors

# Where the last turn ended follows from where the one before it did. A beginning that is missing does no harm for long:
# of two that read from different rounds on, both are right after a few turns that do not take everybody.
LONG_ENOUGH = 50


@selectors.register("round_robin")
@dataclass(frozen=True)
class RoundRobin(Selector):
    """The next clients in the order of their names, after those of the last round; after the last one, the first.

    A client that is not eligible when its turn comes is passed over, and waits for the next time round.
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
    """The name that the last turn ended at, or "": a round which took names up to its beginning went round."""
    last = ""
    for played in past:
        if played.chosen:
            around = [name for name in played.chosen if name <= last]
            last = max(around or played.chosen)
    return last
