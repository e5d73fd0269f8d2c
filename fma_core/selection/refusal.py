"""Why a client was not chosen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """A stable code for programs, and a sentence for people.

    retry_after_s: when the reason will have passed, where that is known.
    """

    code: str
    detail: str
    retry_after_s: float | None = None


def not_reported(fact: str) -> Refusal:
    """The refusal of a filter that looks at a fact which nobody knows."""
    return Refusal("not_reported", f"the client has never reported its {fact}")
