"""The contracts of filters and selectors can fail: one broken promise each, caught by its check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

import numpy as np
import pytest

from fma_core.selection import Candidate, Choice, Filter, Pool, Refusal, Selector
from fma_core.testing import FilterContract, SelectorContract

CALLS = count()


@dataclass(frozen=True)
class First(Selector):
    """The first in the list: sound, and what the broken ones below are made of."""

    source: ClassVar[str] = "nobody's"

    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        return Choice(frozenset(each.client for each in pool.candidates[: pool.num_wanted]))


class ChoosesAStranger(First):
    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        return Choice(frozenset({"stranger"}))


class ChoosesAList(First):
    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        return Choice([each.client for each in pool.candidates])


class RefusesWhomItChose(First):
    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        chosen = super().choose(pool, rng).chosen
        return Choice(chosen, dict.fromkeys(chosen, Refusal("why", "Why not.")))


class SaysNothing(First):
    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        return Choice(frozenset(), {pool.candidates[0].client: Refusal("", "")})


class TakesEverybody(First):
    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        return Choice(frozenset(each.client for each in pool.candidates))


class Unseeded(First):
    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        return Choice(frozenset({pool.candidates[next(CALLS) % len(pool.candidates)].client}))


class ReadsAllRounds(First):
    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        return Choice(frozenset({pool.candidates[len(pool.past) % len(pool.candidates)].client}))


@pytest.mark.parametrize(
    ("selector", "check", "message"),
    [
        (ChoosesAStranger, "test_it_chooses_among_the_eligible", "clients of the pool"),
        (ChoosesAList, "test_it_chooses_among_the_eligible", "a frozenset of names"),
        (RefusesWhomItChose, "test_it_chooses_among_the_eligible", "that it did not choose"),
        (SaysNothing, "test_it_chooses_among_the_eligible", "a code and a sentence"),
        (TakesEverybody, "test_it_chooses_no_more_than_are_wanted", "takes_num"),
        (SaysNothing, "test_it_chooses_as_many_as_are_wanted", "a round waits"),
        (SaysNothing, "test_it_finds_somebody", "stays unknown"),
        (Unseeded, "test_the_same_seed_and_history_give_the_same_choice", "no clock"),
        (ReadsAllRounds, "test_it_looks_at_no_more_rounds_than_it_says", "return None from num_past"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_broken_selector_is_caught(selector: type[First], check: str, message: str) -> None:
    tested: Any = type("Tested", (SelectorContract,), {"part": selector()})()
    with pytest.raises(AssertionError, match=message):
        getattr(tested, check)()


def test_a_sound_selector_passes() -> None:
    tested: Any = type("Tested", (SelectorContract,), {"part": First()})()
    for name in dir(SelectorContract):
        if name.startswith("test_") and "spec" not in name and "plugin" not in name:
            getattr(tested, name)()


@dataclass(frozen=True)
class Rule(Filter):
    """A condition."""

    source: ClassVar[str] = "nobody's"

    def refuse(self, candidate: Candidate) -> Refusal | None:
        return ANSWERS[type(self).__name__](candidate)


class Never(Rule):
    pass


class Always(Rule):
    pass


class AnswersTrue(Rule):
    pass


class ChangesItsMind(Rule):
    pass


WHY = Refusal("why", "Why not.")
ANSWERS: dict[str, Callable[[Candidate], Any]] = {
    "Never": lambda candidate: None,
    "Always": lambda candidate: WHY,
    "AnswersTrue": lambda candidate: True,
    "ChangesItsMind": lambda candidate: WHY if next(CALLS) % 2 else None,
}


@pytest.mark.parametrize(
    ("rule", "check", "message"),
    [
        (Never, "test_it_tells_clients_apart", "must refuse"),
        (Always, "test_it_tells_clients_apart", "must let"),
        (AnswersTrue, "test_it_answers_for_every_client_with_a_reason", "must be None, or a Refusal"),
        (ChangesItsMind, "test_it_answers_for_every_client_with_a_reason", "the same every time"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_broken_filter_is_caught(rule: type[Rule], check: str, message: str) -> None:
    facts = {"eligible": Candidate("a"), "ineligible": Candidate("b")}
    tested: Any = type("Tested", (FilterContract,), {"part": rule(), **facts})()
    with pytest.raises(AssertionError, match=message):
        getattr(tested, check)()
