"""Selectors: the cohort of a round, chosen from the eligible clients."""

from fma_core.selection.cohort.everyone import Everyone
from fma_core.selection.cohort.poisson import Poisson
from fma_core.selection.cohort.random import Random
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors

__all__ = ["Choice", "Everyone", "Poisson", "Pool", "Random", "Selector", "selectors"]
