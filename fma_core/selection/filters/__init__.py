"""Filters: which clients may be asked at all."""

from fma_core.selection.filters.client_version import ClientVersion
from fma_core.selection.filters.filter import Filter, filters
from fma_core.selection.filters.free_memory import FreeMemory
from fma_core.selection.filters.min_examples import MinExamples
from fma_core.selection.filters.power import Battery, Charging
from fma_core.selection.filters.seen_within import SeenWithin
from fma_core.selection.filters.separation import MinRoundsBetweenTurns, MinSecondsBetweenTurns
from fma_core.selection.filters.speed import Speed
from fma_core.selection.filters.tags import Tags
from fma_core.selection.filters.unmetered import Unmetered

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
