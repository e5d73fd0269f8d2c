"""The contract of requirements."""

from __future__ import annotations

from itertools import product
from typing import ClassVar

from fma_core.rounds.requirements import Requirement, RoundProgress, requirements
from fma_core.testing.part_contract import PartContract
from fma_core.testing.require import require

COUNTS = (0, 1, 2, 5, 40)


class RequirementContract(PartContract):
    """The tests of a requirement: inherit it, and set `part`; see `PartContract` for `departures`.

    enough: the progress of a round that may close.
    """

    part: ClassVar[Requirement]
    enough: ClassVar[RoundProgress] = RoundProgress(
        num_updates=100, num_clients=100, num_clients_answered=100
    )

    registry = requirements
    kind = Requirement
    may_depart = frozenset({"test_more_updates_never_hold_a_round_open"})

    def test_it_answers_for_every_progress(self) -> None:
        for progress in _every_progress():
            is_met = self.part.is_met(progress)
            require(type(is_met) is bool, f"is_met({progress}) must be True or False, found {is_met!r}")
            require(self.part.is_met(progress) is is_met, f"is_met({progress}) must be the same every time")

    def test_it_can_be_met(self) -> None:
        require(
            self.part.is_met(self.enough),
            f"is_met must be True for {self.enough}; set `enough` if that is not",
        )

    def test_more_updates_never_hold_a_round_open(self) -> None:
        for progress in _every_progress():
            more = RoundProgress(
                progress.num_updates + 1, progress.num_clients + 1, progress.num_clients_answered + 1
            )
            require(
                not self.part.is_met(progress) or self.part.is_met(more),
                f"{self._name} is met by {progress}, but no more when one more client joins and answers: {more}",
            )


def _every_progress() -> list[RoundProgress]:
    """All possible rounds: no more clients have answered than there are clients, or updates."""
    return [
        RoundProgress(updates, clients, answered)
        for updates, clients, answered in product(COUNTS, repeat=3)
        if answered <= clients and answered <= updates
    ]
