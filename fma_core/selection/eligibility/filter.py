"""The seam of filters: which clients may be asked at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, TypeVar

from fma_core.parameters import CheckedPart
from fma_core.registry import Registry
from fma_core.selection.candidate import Candidate
from fma_core.selection.refusal import Refusal, not_reported

IfUnknown = Annotated[
    Literal["refuse", "accept"], "what becomes of a client that has never reported what the filter looks at"
]
ValueT = TypeVar("ValueT")


class Filter(CheckedPart, ABC):
    """A condition on one client; its subclasses are frozen dataclasses whose fields are its parameters.

    A fact that nobody knows does not meet a condition, unless the filter's `if_unknown` says so: a phone that never
    said whether it charges is not asked while only charging ones are wanted.
    """

    source: ClassVar[str] = ""

    @abstractmethod
    def refuse(self, candidate: Candidate) -> Refusal | None:
        """Why the client may not be asked; None when it may."""


def check_fact(
    value: ValueT | None, fact: str, if_unknown: IfUnknown, refuse: Callable[[ValueT], Refusal | None]
) -> Refusal | None:
    """What `refuse` says of a known value, and what `if_unknown` says of None."""
    if value is not None:
        return refuse(value)
    return None if if_unknown == "accept" else not_reported(fact)


filters: Registry[Filter] = Registry("filter", "fma.filters")


def first_refusal(candidate: Candidate, conditions: Sequence[Filter]) -> Refusal | None:
    """What the first filter that refuses the client says; None when all let it pass."""
    for condition in conditions:
        refusal = condition.refuse(candidate)
        if refusal is not None:
            return refusal
    return None
