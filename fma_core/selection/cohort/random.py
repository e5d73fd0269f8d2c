"""The selector of random clients, all equally likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fma_core.selection.cohort.draw import draw
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors


@selectors.register("random")
@dataclass(frozen=True)
class Random(Selector):
    """As many clients as are wanted, drawn without replacement, all equally likely.

    >>> from fma_core.selection import Candidate, select
    >>> clients = [Candidate("a"), Candidate("b"), Candidate("c")]
    >>> len(select(clients, selector=Random(), num=2, seed=0, round_number=1).chosen)
    2
    """

    source: ClassVar[str] = "McMahan et al. 2017 (FedAvg), arXiv:1602.05629, algorithm 1"

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        drawn = draw(len(pool.candidates), pool.num_wanted, rng)
        return Choice(frozenset(pool.candidates[index].client for index in drawn))
