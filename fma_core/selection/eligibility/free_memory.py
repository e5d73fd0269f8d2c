"""Clients with enough memory left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fma_core.parameters import Bounds
from fma_core.selection.candidate import Candidate
from fma_core.selection.eligibility.filter import Filter, IfUnknown, check_fact, filters
from fma_core.selection.refusal import Refusal


@filters.register("free_memory")
@dataclass(frozen=True)
class FreeMemory(Filter):
    """Clients that reported at least `min_bytes` of free memory."""

    source: ClassVar[str] = "fma"

    min_bytes: Annotated[int, Bounds(ge=1), "how much memory must be free"]
    if_unknown: IfUnknown = "refuse"

    def refuse(self, candidate: Candidate) -> Refusal | None:
        return check_fact(
            candidate.free_memory_bytes, "free memory", self.if_unknown, self._refuse_too_little
        )

    def _refuse_too_little(self, found: int) -> Refusal | None:
        if found >= self.min_bytes:
            return None
        return Refusal(
            "too_little_memory", f"at least {self.min_bytes} bytes must be free, the client has {found}"
        )
