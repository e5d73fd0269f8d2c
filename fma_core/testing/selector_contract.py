"""The contract of selectors."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from fma_core.selection import Choice, Pool, Selector, select, selectors
from fma_core.testing.drawn_candidates import drawn_past, drawn_pools, known_candidates
from fma_core.testing.part_contract import PartContract
from fma_core.testing.require import require


class SelectorContract(PartContract):
    """The tests of a selector: inherit it, and set `part`; see `PartContract` for `departures`."""

    part: ClassVar[Selector]

    registry = selectors
    kind = Selector
    may_depart = frozenset({"test_it_finds_somebody", "test_it_chooses_as_many_as_are_wanted"})

    def test_it_chooses_among_the_eligible(self) -> None:
        for pool in drawn_pools():
            choice = self._choose(pool)
            names = {candidate.client for candidate in pool.candidates}
            require(
                isinstance(choice, Choice) and isinstance(choice.chosen, frozenset),
                f"choose must give a Choice of a frozenset of names, found {choice!r:.200}",
            )
            require(choice.chosen <= names, f"{self._name} must choose clients of the pool")
            require(
                set(choice.refused) <= names - choice.chosen,
                f"{self._name} must give reasons only for clients of the pool that it did not choose",
            )
            require(
                all(refusal.code and refusal.detail for refusal in choice.refused.values()),
                f"every Refusal of {self._name} must have a code and a sentence",
            )

    def test_it_chooses_no_more_than_are_wanted(self) -> None:
        for pool in drawn_pools():
            num_chosen = len(self._choose(pool).chosen)
            require(
                not self.part.takes_num or num_chosen <= pool.num_wanted,
                f"{self._name} chose {num_chosen} clients where {pool.num_wanted} were wanted; one whose own rule "
                "decides how many says so: takes_num: ClassVar[bool] = False",
            )

    def test_it_chooses_as_many_as_are_wanted(self) -> None:
        for pool in drawn_pools():
            num_chosen = len(self._choose(pool).chosen)
            require(
                not self.part.takes_num or num_chosen >= pool.num_wanted,
                f"{self._name} chose {num_chosen} clients where {pool.num_wanted} were wanted, "
                f"of {len(pool.candidates)}; a round waits until its goal can be reached",
            )

    def test_it_finds_somebody(self) -> None:
        for pool in drawn_pools():
            require(
                bool(self._choose(pool).chosen),
                f"{self._name} must choose somebody of {len(pool.candidates)}: facts come with answers, and a new "
                "client that is never asked stays unknown",
            )

    def test_the_same_seed_and_history_give_the_same_choice(self) -> None:
        for pool in drawn_pools():
            require(
                self._choose(pool) == self._choose(pool),
                f"{self._name} must depend on the pool and the generator alone: no clock, no global random numbers, "
                "and nothing that it remembers",
            )

    def test_it_looks_at_no_more_rounds_than_it_says(self) -> None:
        candidates = known_candidates(40)
        past = drawn_past(60, candidates)
        num = self.part.num_past
        enough = past if num is None else past[max(0, len(past) - num) :]
        pool = Pool(tuple(candidates), 6, 61, past)
        require(
            self._choose(pool) == self._choose(replace(pool, past=enough)),
            f"{self._name} must choose the same from the last {num} rounds as from all of them, because no more are "
            "read from the database; return None from num_past when it needs all",
        )

    def test_every_client_is_chosen_or_has_a_reason(self) -> None:
        candidates = known_candidates(40)
        options = {"selector": self.part, "num": 6, "seed": 3, "round_number": 9}
        past = drawn_past(8, candidates)
        selection = select(candidates, past=past, **options)  # type: ignore[arg-type]
        require(
            {*selection.chosen, *selection.refused} == {candidate.client for candidate in candidates},
            f"every client must be chosen by {self._name} or have a reason",
        )
        require(
            selection == select(candidates[::-1], past=past[::-1], **options),  # type: ignore[arg-type]
            f"{self._name} must not depend on the order in which clients are listed",
        )

    def _choose(self, pool: Pool) -> Choice:
        return self.part.choose(pool, np.random.Generator(np.random.PCG64([5, pool.round_number, 0])))
