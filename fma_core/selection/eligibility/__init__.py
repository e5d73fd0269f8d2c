"""Filters: the conditions that a client must meet to be eligible."""

from fma_core.selection.eligibility.client_version import ClientVersion
from fma_core.selection.eligibility.filter import Filter, filters
from fma_core.selection.eligibility.free_memory import FreeMemory
from fma_core.selection.eligibility.min_examples import MinExamples
from fma_core.selection.eligibility.power import Battery, Charging
from fma_core.selection.eligibility.seen_within import SeenWithin
from fma_core.selection.eligibility.separation import MinRoundsBetweenTurns, MinSecondsBetweenTurns
from fma_core.selection.eligibility.speed import Speed
from fma_core.selection.eligibility.tags import Tags
from fma_core.selection.eligibility.unmetered import Unmetered

__all__ = [
    "Battery",
    "Charging",
    "ClientVersion",
    "Filter",
    "FreeMemory",
    "MinExamples",
    "MinRoundsBetweenTurns",
    "MinSecondsBetweenTurns",
    "SeenWithin",
    "Speed",
    "Tags",
    "Unmetered",
    "filters",
]
