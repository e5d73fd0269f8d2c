"""The filter by the cost of transfers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fma_core.selection.candidate import Candidate
from fma_core.selection.eligibility.filter import Filter, IfUnknown, check_fact, filters
from fma_core.selection.refusal import Refusal


@filters.register("unmetered")
@dataclass(frozen=True)
class Unmetered(Filter):
    """Clients on a network that is not metered.

    >>> Unmetered().refuse(Candidate("phone", is_unmetered=False)).detail
    "the client's network must not be metered, and is"
    """

    source: ClassVar[str] = "Bonawitz et al. 2019, arXiv:1902.01046, section 3"

    if_unknown: IfUnknown = "refuse"

    def refuse(self, candidate: Candidate) -> Refusal | None:
        return check_fact(candidate.is_unmetered, "kind of network", self.if_unknown, _refuse_metered)


def _refuse_metered(is_unmetered: bool) -> Refusal | None:
    return (
        None
        if is_unmetered
        else Refusal("metered_network", "the client's network must not be metered, and is")
    )
