"""Filters: which clients may be asked at all."""

from fma_core.selection.eligibility.filter import Filter, filters
from fma_core.selection.eligibility.tags import Tags

__all__ = ["Filter", "Tags", "filters"]
