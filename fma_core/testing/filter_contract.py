"""The contract of filters."""

from __future__ import annotations

from typing import ClassVar

from fma_core.selection import Candidate, Filter, Refusal, filters
from fma_core.testing.drawn_candidates import known_candidates, nonsense_candidates, unknown_candidates
from fma_core.testing.part_contract import PartContract
from fma_core.testing.require import require


class FilterContract(PartContract):
    """The tests of a filter: inherit it, and set `part`; see `PartContract` for `departures`.

    eligible: a client that passes; ineligible: one that does not.
    """

    part: ClassVar[Filter]
    eligible: ClassVar[Candidate]
    ineligible: ClassVar[Candidate]

    registry = filters
    kind = Filter

    def test_it_tells_clients_apart(self) -> None:
        require(
            self.part.refuse(self.eligible) is None,
            f"{self._name} must let `eligible` pass, {self.eligible}",
        )
        require(
            self.part.refuse(self.ineligible) is not None,
            f"{self._name} must refuse `ineligible`, {self.ineligible}",
        )

    def test_it_answers_for_every_client_with_a_reason(self) -> None:
        for candidate in (*known_candidates(30), *unknown_candidates(1), *nonsense_candidates()):
            refusal = self.part.refuse(candidate)
            require(
                refusal is None
                or (isinstance(refusal, Refusal) and bool(refusal.code) and bool(refusal.detail)),
                f"refuse({candidate}) must be None, or a Refusal with a code and a sentence, found {refusal!r}",
            )
            # Compared by repr, because a reason may contain NaN, which does not equal itself.
            require(
                repr(self.part.refuse(candidate)) == repr(refusal),
                f"refuse({candidate}) must be the same every time",
            )
