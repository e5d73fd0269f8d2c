"""The reason why a client was not chosen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reason not to choose a client: a stable code for programs, and a sentence for people.

    retry_after_s: the seconds until the reason has passed, when that is known.
    """

    code: str
    detail: str
    retry_after_s: float | None = None


def not_reported(fact: str) -> Refusal:
    """The refusal of a filter for a fact that is not known."""
    return Refusal("not_reported", f"the client has never reported its {fact}")
