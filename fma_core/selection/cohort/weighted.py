"""The selector of random clients, in proportion to their examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fma_core.selection.cohort.draw import draw_weighted
from fma_core.selection.cohort.facts import example_weights
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors


@selectors.register("weighted")
@dataclass(frozen=True)
class Weighted(Selector):
    """As many clients as are wanted, drawn one after another without replacement, in proportion to their examples.

    A client that has not reported its number of examples counts like the median of the others. A client without
    examples is taken only when there are no others. Use it with a mean of equal weights. The paper draws with
    replacement.

    >>> from fma_core.selection import Candidate, select
    >>> clients = [Candidate("many", num_examples=9), Candidate("none", num_examples=0)]
    >>> select(clients, selector=Weighted(), num=1, seed=0, round_number=1).chosen
    ('many',)
    """

    source: ClassVar[str] = "Li et al. 2020, arXiv:1907.02189, scheme I"

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        drawn = draw_weighted(example_weights(pool.candidates), pool.num_wanted, rng)
        return Choice(frozenset(pool.candidates[index].client for index in drawn))
