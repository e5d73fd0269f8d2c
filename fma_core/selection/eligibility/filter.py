"""The seam of filters: conditions that a client must meet to be eligible."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, TypeVar

from fma_core.parameters import CheckedPart
from fma_core.registry import Registry
from fma_core.selection.candidate import Candidate
from fma_core.selection.refusal import Refusal, not_reported

IfUnknown = Annotated[
    Literal["refuse", "accept"], "whether to refuse or accept a client that never reported the fact"
]
ValueT = TypeVar("ValueT")


class Filter(CheckedPart, ABC):
    """A condition on one client; its subclasses are frozen dataclasses whose fields are its parameters.

    An unknown fact does not meet a condition, unless the filter's `if_unknown` is "accept": a phone that never reported
    whether it charges is not asked while only charging ones are wanted.
    """

    source: ClassVar[str] = ""

    @abstractmethod
    def refuse(self, candidate: Candidate) -> Refusal | None:
        """The reason not to ask the client; None when it is eligible."""


def check_fact(
    value: ValueT | None, fact: str, if_unknown: IfUnknown, refuse: Callable[[ValueT], Refusal | None]
) -> Refusal | None:
    """The answer of `refuse` to a known value, and of `if_unknown` to None."""
    if value is not None:
        return refuse(value)
    return None if if_unknown == "accept" else not_reported(fact)


filters: Registry[Filter] = Registry("filter", "fma.filters")


def first_refusal(candidate: Candidate, conditions: Sequence[Filter]) -> Refusal | None:
    """The refusal of the first filter that refuses the client; None when all accept it."""
    for condition in conditions:
        refusal = condition.refuse(candidate)
        if refusal is not None:
            return refusal
    return None
