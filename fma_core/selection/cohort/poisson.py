"""Poisson sampling: an independent draw for each client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fma_core.parameters import Bounds
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors
from fma_core.selection.refusal import Refusal


@selectors.register("poisson")
@dataclass(frozen=True)
class Poisson(Selector):
    """Each client with probability q, independently of the others and of the number that is wanted.

    The number of clients varies from round to round, and may be 0. Privacy amplification by sampling requires exactly
    this: a fixed number of clients, or a bound on it, is another mechanism.

    >>> from fma_core.selection import Candidate, select
    >>> select([Candidate("a"), Candidate("b")], selector=Poisson(q=1.0), num=1, seed=0, round_number=1).chosen
    ('a', 'b')
    """

    source: ClassVar[str] = "McMahan et al. 2018 (DP-FedAvg), arXiv:1710.06963, algorithm 1"
    takes_num: ClassVar[bool] = False

    q: Annotated[float, Bounds(gt=0, le=1), "the probability of each client"]

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        drawn = rng.random(len(pool.candidates)) < self.q
        chosen = frozenset(pool.candidates[index].client for index in np.flatnonzero(drawn))
        refusal = Refusal(
            "not_drawn", f"each client is drawn with probability {self.q:g}, and this one was not"
        )
        return Choice(chosen, {each.client: refusal for each in pool.candidates if each.client not in chosen})
