"""The cost of one thing for one limit."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Cost:
    """key: whose limit, and of what. Both numbers in seconds, so that counting needs one number for each key.

    takes_s: the time in which as much as this is given back; period_s: that in which all is, also the most that may be
    taken at once.
    Source: the generic cell rate algorithm, ITU-T I.371, annex A, as virtual scheduling.
    """

    key: str
    takes_s: float
    period_s: float

    def wait_s(self, full_again_at: float, now: float) -> float:
        """The seconds until there is enough; 0 or less when there is. A cost above the whole limit is owed."""
        return max(full_again_at, now) - now + min(self.takes_s, self.period_s) - self.period_s

    def only_asked(self) -> Cost:
        """A cost with the same wait that takes nothing."""
        return Cost(self.key, 0.0, self.period_s - min(self.takes_s, self.period_s))

    def given_back(self) -> Cost:
        """The opposite of a cost that was taken."""
        return Cost(self.key, -self.takes_s, inf)

    def in_any_case(self) -> Cost:
        """A cost that takes as much and never has a wait."""
        return Cost(self.key, self.takes_s, inf)
