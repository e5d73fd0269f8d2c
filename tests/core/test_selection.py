"""Laws of a selection, for every selector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fma_core.selection import (
    Candidate,
    Choice,
    Everyone,
    PastRound,
    Poisson,
    Random,
    Selector,
    Tags,
    screen,
    select,
    selectors,
)
from tests.core.selections import SELECTORS, candidates_of, drawn_candidates, drawn_past

NAMES = sorted(SELECTORS)
EUROPE = Tags(any_of=("europe",))


def test_every_selector_is_under_test() -> None:
    assert set(SELECTORS) == set(selectors.names())


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.data())
def test_in_any_order_the_same_candidates_are_chosen_and_the_others_refused_with_a_reason(
    name: str, data: st.DataObject
) -> None:
    candidates = data.draw(drawn_candidates())
    num = data.draw(st.none() | st.integers(1, 8))
    past = data.draw(drawn_past([each.client for each in candidates]))
    filters = data.draw(st.sampled_from([[], [EUROPE]]))
    options: dict[str, Any] = {
        "filters": filters,
        "selector": SELECTORS[name],
        "num": num,
        "seed": 7,
        "round_number": len(past) + 1,
    }
    found = select(candidates, past=past, **options)

    eligible = {each.client for each in candidates if not filters or "europe" in each.tags}
    assert set(found.chosen) <= eligible
    assert {*found.chosen, *found.refused} == {each.client for each in candidates}
    assert len(found.chosen) + len(found.refused) == len(candidates)
    assert all(refusal.code and refusal.detail for refusal in found.refused.values())
    assert list(found.chosen) == sorted(found.chosen)
    if SELECTORS[name].takes_num and num is not None:
        assert len(found.chosen) <= num
    assert found == select(data.draw(st.permutations(candidates)), past=past[::-1], **options)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_choice_and_rounds_differ(name: str) -> None:
    candidates = candidates_of(200)
    chosen = [
        select(candidates, selector=SELECTORS[name], num=10, seed=5, round_number=number).chosen
        for number in (1, 1, 2, 3)
    ]

    assert chosen[0] == chosen[1]
    if name not in ("everyone", "round_robin"):
        assert len(set(chosen)) == 3


@pytest.mark.parametrize("name", NAMES)
def test_many_clients(name: str) -> None:
    # A selector that compares each with each would take minutes.
    candidates = candidates_of(30_000)
    past = [
        PastRound(number, chosen=tuple(f"c{index:06}" for index in range(number * 10, number * 10 + 10)))
        for number in range(1, 30)
    ]
    found = select(candidates, selector=SELECTORS[name], num=100, seed=0, round_number=30, past=past)

    assert len(found.chosen) > 0
    assert len(found.chosen) + len(found.refused) == 30_000


def test_nobody_is_eligible() -> None:
    found = select([Candidate("a")], filters=[EUROPE], selector=Everyone(), num=1, seed=0, round_number=1)

    assert found.chosen == ()
    assert found.refused["a"].code == "tags"
    assert select([], selector=Random(), num=1, seed=0, round_number=1).refused == {}


def test_the_first_filter_that_refuses_gives_the_reason() -> None:
    candidate = Candidate("a", tags=frozenset({"asia"}))
    _, refused = screen([candidate], [EUROPE, Tags(none_of=("asia",))])

    assert refused["a"].detail == "the client has none of the tags europe"


def test_a_client_is_a_candidate_once() -> None:
    with pytest.raises(ValueError, match="'a' twice"):
        screen([Candidate("a"), Candidate("a")], [])


@pytest.mark.parametrize("num", [0, -1])
def test_at_least_one_client_is_wanted(num: int) -> None:
    with pytest.raises(ValueError, match="num must be at least 1"):
        select([Candidate("a")], selector=Random(), num=num, seed=0, round_number=1)


@dataclass(frozen=True)
class Wrong(Selector):
    """Chooses whom it was told to, whether that can be or not."""

    names: tuple[str, ...]

    def choose(self, pool: Any, rng: Any) -> Choice:
        return Choice(frozenset(self.names))


@pytest.mark.parametrize(("names", "what"), [(("z",), "not eligible"), (("a", "b"), "1 are wanted")])
def test_a_selector_that_breaks_its_contract_is_caught(names: tuple[str, ...], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        select([Candidate("a"), Candidate("b")], selector=Wrong(names), num=1, seed=0, round_number=1)


@pytest.mark.parametrize("name", [name for name in NAMES if SELECTORS[name].takes_num])
def test_a_bound_of_none_takes_all_that_the_rule_allows(name: str) -> None:
    candidates = candidates_of(20)
    bounded = select(candidates, selector=SELECTORS[name], num=3, seed=0, round_number=1)
    found = select(candidates, selector=SELECTORS[name], num=None, seed=0, round_number=1)

    assert len(found.chosen) >= len(bounded.chosen)


def inclusion(
    selector: Selector, num: int | None, candidates: list[Candidate], rounds: int
) -> dict[str, float]:
    """How often each client was chosen."""
    counts = dict.fromkeys((each.client for each in candidates), 0)
    for number in range(1, rounds + 1):
        for client in select(candidates, selector=selector, num=num, seed=3, round_number=number).chosen:
            counts[client] += 1
    return {client: count / rounds for client, count in counts.items()}


# 4 standard errors of a mean of 3000 draws are 0.036 at most.
def test_random_takes_each_client_equally_often() -> None:
    found = inclusion(Random(), 3, candidates_of(10), 3000)

    assert list(found.values()) == pytest.approx([0.3] * 10, abs=0.036)


def test_poisson_takes_each_client_with_its_probability_and_independently() -> None:
    candidates = candidates_of(10)
    found = inclusion(Poisson(q=0.2), 3, candidates, 3000)
    sizes = [
        len(select(candidates, selector=Poisson(q=0.2), num=3, seed=9, round_number=number).chosen)
        for number in range(3000)
    ]

    assert list(found.values()) == pytest.approx([0.2] * 10, abs=0.036)
    # The size is binomial: its variance is what independence makes it.
    mean = sum(sizes) / 3000
    assert mean == pytest.approx(2, abs=0.1)
    assert sum((size - mean) ** 2 for size in sizes) / 3000 == pytest.approx(1.6, abs=0.17)


def test_poisson_of_one_is_everyone() -> None:
    found = select(candidates_of(9), selector=Poisson(q=1.0), num=2, seed=0, round_number=1)

    assert len(found.chosen) == 9
