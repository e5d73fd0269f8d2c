"""Selectors: the cohort of a round, chosen from the eligible clients."""

from fma_core.selection.selectors.everyone import Everyone
from fma_core.selection.selectors.fedcs import FedCS
from fma_core.selection.selectors.least_recently_used import LeastRecentlyUsed
from fma_core.selection.selectors.oort import Oort
from fma_core.selection.selectors.poisson import Poisson
from fma_core.selection.selectors.power_of_choice import PowerOfChoice
from fma_core.selection.selectors.random import Random
from fma_core.selection.selectors.round_robin import RoundRobin
from fma_core.selection.selectors.selector import Choice, Pool, Selector, selectors
from fma_core.selection.selectors.stratified import Stratified
from fma_core.selection.selectors.tifl import TiFL
from fma_core.selection.selectors.weighted import Weighted

__all__ = [
    "Choice",
    "Everyone",
    "FedCS",
    "LeastRecentlyUsed",
    "Oort",
    "Poisson",
    "Pool",
    "PowerOfChoice",
    "Random",
    "RoundRobin",
    "Selector",
    "Stratified",
    "TiFL",
    "Weighted",
    "selectors",
]
