"""Selectors: the cohort of a round, chosen from the eligible clients."""

from fma_core.selection.cohort.everyone import EVERYONE, Everyone
from fma_core.selection.cohort.fedcs import FedCS
from fma_core.selection.cohort.least_recently_used import LeastRecentlyUsed
from fma_core.selection.cohort.oort import Oort
from fma_core.selection.cohort.poisson import Poisson
from fma_core.selection.cohort.power_of_choice import PowerOfChoice
from fma_core.selection.cohort.random import Random
from fma_core.selection.cohort.round_robin import RoundRobin
from fma_core.selection.cohort.selector import Choice, Pool, Selector, selectors
from fma_core.selection.cohort.stratified import Stratified
from fma_core.selection.cohort.tifl import TiFL
from fma_core.selection.cohort.weighted import Weighted

__all__ = [
    "EVERYONE",
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
