"""Clients with enough data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fma_core.parameters import Bounds
from fma_core.selection.candidate import Candidate
from fma_core.selection.eligibility.filter import Filter, IfUnknown, check_fact, filters
from fma_core.selection.refusal import Refusal


@filters.register("min_examples")
@dataclass(frozen=True)
class MinExamples(Filter):
    """Clients that had at least `num` examples in their last update.

    A client that has sent none is accepted, unless `if_unknown` says otherwise: its first turn is when it says so.
    """

    source: ClassVar[str] = "fma"

    num: Annotated[int, Bounds(ge=1), "how many examples a client needs"]
    if_unknown: IfUnknown = "accept"

    def refuse(self, candidate: Candidate) -> Refusal | None:
        return check_fact(candidate.num_examples, "number of examples", self.if_unknown, self._refuse_too_few)

    def _refuse_too_few(self, found: int) -> Refusal | None:
        if found >= self.num:
            return None
        return Refusal("too_few_examples", f"at least {self.num} examples are needed, the client has {found}")
