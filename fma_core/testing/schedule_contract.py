"""The contract of schedules."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

from fma_core.client_config.schedules import Schedule, schedules
from fma_core.testing.part_contract import PartContract
from fma_core.testing.require import require

ROUNDS = (*range(1, 60), 1000, 10**6, 10**12)


class ScheduleContract(PartContract):
    """The tests of a schedule: inherit it, and set `part`; see `PartContract` for `departures`."""

    part: ClassVar[Schedule]

    registry = schedules
    kind = Schedule

    def test_it_gives_a_finite_number_in_every_round(self) -> None:
        for round_number in ROUNDS:
            number = self.part.number(round_number)
            require(
                type(number) is float and math.isfinite(number),
                f"number({round_number}) must be a finite float, found {number!r}",
            )
            require(self.part.number(round_number) == number, f"number({round_number}) must never change")

    def test_it_gives_integers_when_it_is_rounded(self) -> None:
        rounded = replace(self.part, rounded=True)
        for round_number in ROUNDS:
            number = rounded.at(round_number)
            require(
                type(number) is int, f"at({round_number}) must be an int when it is rounded, found {number!r}"
            )
            near = abs(number - self.part.number(round_number)) <= 0.5
            require(near, f"at({round_number}) must be the nearest integer, found {number}")
