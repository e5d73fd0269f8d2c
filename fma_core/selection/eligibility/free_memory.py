"""The filter by free memory."""

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
    """Clients that reported at least `min_bytes` of free memory.

    >>> FreeMemory(min_bytes=1000).refuse(Candidate("phone", free_memory_bytes=10)).detail
    'at least 1000 bytes must be free, the client has 10'
    """

    source: ClassVar[str] = "fma"

    min_bytes: Annotated[int, Bounds(ge=1), "the memory that must be free, in bytes"]
    if_unknown: IfUnknown = "refuse"

    def refuse(self, candidate: Candidate) -> Refusal | None:
        return check_fact(
            candidate.free_memory_bytes, "free memory", self.if_unknown, self._refuse_too_little
        )

    def _refuse_too_little(self, free_bytes: int) -> Refusal | None:
        if free_bytes >= self.min_bytes:
            return None
        return Refusal(
            "too_little_memory", f"at least {self.min_bytes} bytes must be free, the client has {free_bytes}"
        )
