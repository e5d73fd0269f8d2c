"""The filters by the time since the last turn. A client that never had a turn is always eligible.

Separation bounds how often a client's data can count. Privacy by correlated noise needs such a bound: Kairouz et al.
2021 (DP-FTRL), arXiv:2103.00039.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fma_core.parameters import Bounds
from fma_core.selection.candidate import Candidate
from fma_core.selection.eligibility.filter import Filter, filters
from fma_core.selection.refusal import Refusal


@filters.register("min_seconds_between_turns")
@dataclass(frozen=True)
class MinSecondsBetweenTurns(Filter):
    """Clients that were last chosen at least `seconds` ago, or never.

    >>> MinSecondsBetweenTurns(seconds=60).refuse(Candidate("phone", seconds_since_turn=20.0)).retry_after_s
    40.0
    """

    source: ClassVar[str] = "fma"

    seconds: Annotated[float, Bounds(gt=0), "the time from one turn until the client is eligible again"]

    def refuse(self, candidate: Candidate) -> Refusal | None:
        passed = candidate.seconds_since_turn
        if passed is None or passed >= self.seconds:
            return None
        return Refusal(
            "turn_too_recent",
            f"the client had its turn {passed:.0f} s ago, and {self.seconds:.0f} s must lie between two turns",
            retry_after_s=self.seconds - passed,
        )


@filters.register("min_rounds_between_turns")
@dataclass(frozen=True)
class MinRoundsBetweenTurns(Filter):
    """Clients that were left out of at least `rounds` rounds since they were last chosen, or were never chosen.

    >>> MinRoundsBetweenTurns(rounds=2).refuse(Candidate("phone", rounds_since_turn=3)) is None
    True
    """

    source: ClassVar[str] = "Kairouz et al. 2021 (DP-FTRL), arXiv:2103.00039"

    rounds: Annotated[int, Bounds(ge=1), "the number of rounds between two turns of a client"]

    def refuse(self, candidate: Candidate) -> Refusal | None:
        since = candidate.rounds_since_turn
        if since is None or since > self.rounds:
            return None
        return Refusal(
            "turn_too_recent",
            f"the client had its turn {since} round(s) ago, and {self.rounds} must lie between two turns",
        )
