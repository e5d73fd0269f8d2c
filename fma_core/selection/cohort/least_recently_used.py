"""The selector of the clients that have waited longest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fma_core.selection.cohort.facts import facts
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors


@selectors.register("least_recently_used")
@dataclass(frozen=True)
class LeastRecentlyUsed(Selector):
    """The clients that have waited most rounds since their last turn, and before them those without one; random ties.

    >>> from fma_core.selection import Candidate, select
    >>> clients = [Candidate("a", rounds_since_turn=1), Candidate("b", rounds_since_turn=5), Candidate("new")]
    >>> select(clients, selector=LeastRecentlyUsed(), num=2, seed=0, round_number=6).chosen
    ('b', 'new')
    """

    source: ClassVar[str] = "fma"

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        waited = facts(pool.candidates, "rounds_since_turn")
        waited[np.isnan(waited)] = np.inf
        order = np.lexsort((rng.random(len(waited)), -waited))
        return Choice(frozenset(pool.candidates[index].client for index in order[: pool.num_wanted]))
