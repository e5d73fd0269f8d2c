"""Clients that are there."""

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
    """Clients that called the server within the last `seconds`; one that never called is refused."""

    source: ClassVar[str] = "fma"

    seconds: Annotated[float, Bounds(gt=0), "how long ago the client's last call may be"]

    def refuse(self, candidate: Candidate) -> Refusal | None:
        passed = candidate.seconds_since_seen
        if passed is None:
            return Refusal("not_seen", "the client has never called")
        if passed <= self.seconds:
            return None
        return Refusal(
            "not_seen", f"the client last called {passed:.0f} s ago, {self.seconds:.0f} s are allowed"
        )
