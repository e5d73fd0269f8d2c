"""The filter by the time of the last call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fma_core.parameters import Bounds
from fma_core.selection.candidate import Candidate
from fma_core.selection.eligibility.filter import Filter, filters
from fma_core.selection.refusal import Refusal


@filters.register("seen_within")
@dataclass(frozen=True)
class SeenWithin(Filter):
    """Clients that called the server within the last `seconds`; a client that never called is refused.

    >>> SeenWithin(seconds=60).refuse(Candidate("phone", seconds_since_seen=90.0)).detail
    'the client last called 90 s ago, 60 s are allowed'
    """

    source: ClassVar[str] = "fma"

    seconds: Annotated[float, Bounds(gt=0), "the largest age of the client's last call"]

    def refuse(self, candidate: Candidate) -> Refusal | None:
        passed = candidate.seconds_since_seen
        if passed is None:
            return Refusal("not_seen", "the client has never called")
        if passed <= self.seconds:
            return None
        return Refusal(
            "not_seen", f"the client last called {passed:.0f} s ago, {self.seconds:.0f} s are allowed"
        )
