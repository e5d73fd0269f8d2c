"""The filters by battery and by power supply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fma_core.parameters import Bounds
from fma_core.selection.candidate import Candidate
from fma_core.selection.eligibility.filter import Filter, IfUnknown, check_fact, filters
from fma_core.selection.refusal import Refusal


@filters.register("battery")
@dataclass(frozen=True)
class Battery(Filter):
    """Clients that are charging, or have at least `min_level` of their battery left.

    A machine without a battery reports that it is charging.

    >>> Battery(min_level=0.5).refuse(Candidate("phone", battery=0.2)).detail
    "its battery must have 50% left, the client's has 20%"
    """

    source: ClassVar[str] = "Bonawitz et al. 2019, arXiv:1902.01046, section 3"

    min_level: Annotated[float, Bounds(gt=0, le=1), "the share of the battery that must be left"]
    if_unknown: IfUnknown = "refuse"

    def refuse(self, candidate: Candidate) -> Refusal | None:
        if candidate.is_charging:
            return None
        return check_fact(candidate.battery, "battery level", self.if_unknown, self._refuse_low)

    def _refuse_low(self, level: float) -> Refusal | None:
        if level >= self.min_level:
            return None
        return Refusal(
            "battery_low", f"its battery must have {self.min_level:.0%} left, the client's has {level:.0%}"
        )


@filters.register("charging")
@dataclass(frozen=True)
class Charging(Filter):
    """Clients that are connected to power.

    >>> Charging().refuse(Candidate("phone", is_charging=False)).detail
    'the client must be connected to power, and is not'
    """

    source: ClassVar[str] = "Bonawitz et al. 2019, arXiv:1902.01046, section 3"

    if_unknown: IfUnknown = "refuse"

    def refuse(self, candidate: Candidate) -> Refusal | None:
        return check_fact(candidate.is_charging, "charging state", self.if_unknown, _refuse_on_battery)


def _refuse_on_battery(is_charging: bool) -> Refusal | None:
    return (
        None if is_charging else Refusal("not_charging", "the client must be connected to power, and is not")
    )
