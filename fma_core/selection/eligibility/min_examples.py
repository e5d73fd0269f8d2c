"""The filter by the number of examples."""

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

    A client without an update is accepted, unless `if_unknown` is "refuse": it reports its number with its first
    update.

    >>> MinExamples(num=10).refuse(Candidate("new")) is None
    True
    >>> MinExamples(num=10).refuse(Candidate("phone", num_examples=3)).detail
    'at least 10 examples are needed, the client has 3'
    """

    source: ClassVar[str] = "fma"

    num: Annotated[int, Bounds(ge=1), "the number of examples that a client needs"]
    if_unknown: IfUnknown = "accept"

    def refuse(self, candidate: Candidate) -> Refusal | None:
        return check_fact(candidate.num_examples, "number of examples", self.if_unknown, self._refuse_too_few)

    def _refuse_too_few(self, num_examples: int) -> Refusal | None:
        if num_examples >= self.num:
            return None
        return Refusal(
            "too_few_examples", f"at least {self.num} examples are needed, the client has {num_examples}"
        )
