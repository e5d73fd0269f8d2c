"""A number that is to be reached, and whether it was."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """found is to be at most, or at least, `bound`."""

    what: str
    way: str
    found: float
    sign: str
    bound: float

    @property
    def is_reached(self) -> bool:
        return self.found <= self.bound if self.sign == "≤" else self.found >= self.bound

    def to_markdown(self) -> str:
        verdict = "reached" if self.is_reached else "**not reached**"
        return f"| {self.what} | {self.way} | {self.found:.2f} | {self.sign} {self.bound:g} | {verdict} |"

    def __str__(self) -> str:
        verdict = "reached" if self.is_reached else "NOT REACHED"
        return f"{self.what:58} {self.way:22} {self.found:8.2f} {self.sign} {self.bound:<6g} {verdict}"
