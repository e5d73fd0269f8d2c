"""Clients at random, in proportion to their data."""

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

    A client that has not said how many examples it has counts like the median of the others. One that has none is
    taken only when there are no others. With it goes a mean of equal weights; the paper draws with replacement.
    """

    source: ClassVar[str] = "Li et al. 2020, arXiv:1907.02189, scheme I"

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        drawn = draw_weighted(example_weights(pool.candidates), pool.num_wanted, rng)
        return Choice(frozenset(pool.candidates[index].client for index in drawn))
