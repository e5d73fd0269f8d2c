"""The selector of all clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors

EVERYONE = "everyone"


@selectors.register(EVERYONE)
@dataclass(frozen=True)
class Everyone(Selector):
    """Every eligible client, however many are wanted. FMA's clients, which never ask to join, need it.

    >>> from fma_core.selection import Candidate, select
    >>> select([Candidate("a"), Candidate("b")], selector=Everyone(), num=1, seed=0, round_number=1).chosen
    ('a', 'b')
    """

    source: ClassVar[str] = "Capital One's Federated Model Aggregation"
    takes_num: ClassVar[bool] = False

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        return Choice(frozenset(candidate.client for candidate in pool.candidates))
