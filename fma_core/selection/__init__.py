"""Client selection: filters say which clients may be asked, and a selector whom of them to ask."""

from fma_core.selection.candidate import Candidate, PastRound
from fma_core.selection.cohort import Choice, Everyone, Poisson, Pool, Random, Selector, selectors
from fma_core.selection.eligibility import Filter, Tags, filters
from fma_core.selection.refusal import Refusal
from fma_core.selection.select import Selection, screen, select

__all__ = [
    "Candidate",
    "Choice",
    "Everyone",
    "Filter",
    "PastRound",
    "Poisson",
    "Pool",
    "Random",
    "Refusal",
    "Selection",
    "Selector",
    "Tags",
    "filters",
    "screen",
    "select",
    "selectors",
]
