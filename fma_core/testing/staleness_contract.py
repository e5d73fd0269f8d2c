"""What the server counts on in a staleness function."""

from __future__ import annotations

import math
from typing import ClassVar

from fma_core.aggregation.staleness import Staleness, stalenesses
from fma_core.testing.part_contract import PartContract
from fma_core.testing.require import require

AGES = (*range(50), 1000, 10_000)


class StalenessContract(PartContract):
    """Inherit it, and set `part`; see `PartContract` for `departures`."""

    part: ClassVar[Staleness]

    registry = stalenesses
    kind = Staleness
    may_depart = frozenset({"test_older_updates_never_count_for_more", "test_a_fresh_update_counts_in_full"})

    def test_discounts_are_shares(self) -> None:
        for age in AGES:
            found = self.part.discount(age)
            require(
                type(found) is float and math.isfinite(found) and 0 < found <= 1,
                f"discount({age}) must be a float greater than 0 and at most 1, found {found!r}",
            )
            require(self.part.discount(age) == found, f"discount({age}) must be the same every time")

    def test_a_fresh_update_counts_in_full(self) -> None:
        require(self.part.discount(0) == 1, f"discount(0) must be 1, found {self.part.discount(0)}")

    def test_older_updates_never_count_for_more(self) -> None:
        found = [self.part.discount(age) for age in AGES]
        require(found == sorted(found, reverse=True), f"{self._name} must never rise with age, found {found}")
