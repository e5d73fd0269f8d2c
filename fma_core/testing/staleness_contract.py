"""The contract of staleness functions."""

from __future__ import annotations

import math
from typing import ClassVar

from fma_core.aggregation.staleness import Staleness, stalenesses
from fma_core.testing.part_contract import PartContract
from fma_core.testing.require import require

AGES = (*range(50), 1000, 10_000)


class StalenessContract(PartContract):
    """The tests of a staleness function: inherit it, and set `part`; see `PartContract` for `departures`."""

    part: ClassVar[Staleness]

    registry = stalenesses
    kind = Staleness
    may_depart = frozenset({"test_older_updates_never_count_for_more", "test_a_fresh_update_counts_in_full"})

    def test_discounts_are_shares(self) -> None:
        for age in AGES:
            discount = self.part.discount(age)
            require(
                type(discount) is float and math.isfinite(discount) and 0 < discount <= 1,
                f"discount({age}) must be a float greater than 0 and at most 1, found {discount!r}",
            )
            require(self.part.discount(age) == discount, f"discount({age}) must be the same every time")

    def test_a_fresh_update_counts_in_full(self) -> None:
        require(self.part.discount(0) == 1, f"discount(0) must be 1, found {self.part.discount(0)}")

    def test_older_updates_never_count_for_more(self) -> None:
        discounts = [self.part.discount(age) for age in AGES]
        require(
            discounts == sorted(discounts, reverse=True),
            f"{self._name} must never rise with age, found {discounts}",
        )
