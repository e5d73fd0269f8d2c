"""The next step of an open round: each line of the table of `fma_core.rounds.life`, and laws over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fma_core.aggregation.aggregators import aggregators
from fma_core.aggregation.strategy import Strategy
from fma_core.rounds.closing import RoundFacts, RoundRules
from fma_core.rounds.life import (
    TRANSITIONS,
    Close,
    End,
    Fail,
    Reopen,
    Start,
    Wait,
    next_step,
)
from fma_core.rounds.policy import RoundPolicy
from fma_core.rounds.requirements import requirements
from fma_core.selection import Candidate, Filter, PastRound, Selector, filters, selectors


@dataclass(frozen=True)
class Rules:
    closing: RoundRules
    selector: Selector = field(default_factory=lambda: selectors.build("everyone", {}))
    filters: Sequence[Filter] = ()
    chooses_clients: bool = False
    seed: int = 1


@dataclass(frozen=True)
class Facts:
    """A running, started round without answers; `updates` of them have come."""

    reason: str | None = None
    is_running: bool = True
    is_started: bool = True
    is_aggregating: bool = False
    num_clients: int = 4
    num_reopenings: int = 0
    num_draws: int = 0
    number: int = 3
    updates: int = 0
    num_asked: int | None = None
    deadline_passed: bool = False
    people: Sequence[Candidate] = field(
        default_factory=lambda: [Candidate(client=name) for name in ("ann", "bob", "cy", "di")]
    )

    @property
    def num_updates(self) -> int:
        return self.updates

    def end_reason(self) -> str | None:
        return self.reason

    def progress(self) -> RoundFacts:
        return RoundFacts(
            num_updates=self.updates,
            num_clients=self.num_clients,
            num_asked=self.num_asked,
            deadline_passed=self.deadline_passed,
        )

    def candidates(self) -> Iterable[Candidate]:
        return self.people

    def past(self, limit: int | None) -> Sequence[PastRound]:
        return ()

    def asked(self) -> set[str]:
        return set()


def rules(requirement: tuple[str, dict[str, int]] | None = None, **policy: object) -> Rules:
    strategy = Strategy(aggregators.build("mean", {}))
    built = None if requirement is None else requirements.build(*requirement)
    return Rules(RoundRules(RoundPolicy.from_json(policy), strategy, built))


def choosing(**policy: object) -> Rules:
    return replace(rules(**policy), selector=selectors.build("random", {}), chooses_clients=True)


def test_an_experiment_that_is_over_ends_whatever_its_round_does():
    facts = Facts(reason="num_rounds", is_running=False, is_started=False)

    assert next_step(rules(), facts) == End("num_rounds")


def test_a_paused_experiment_waits_even_when_all_have_answered():
    step = next_step(rules(goal=1), Facts(is_running=False, updates=4))

    assert step == Wait(is_complete=True)


def test_late_updates_close_a_round_that_finds_nobody_to_ask():
    narrow = replace(choosing(goal=2), filters=[filters.build("tags", {"any_of": ["fast"]})])
    late = Facts(is_started=False, updates=2)

    assert next_step(narrow, late) == Close()
    assert next_step(narrow, replace(late, is_aggregating=True)) == Wait(
        "the round before it, which is being aggregated", is_complete=True
    )
    assert isinstance(next_step(narrow, replace(late, updates=1)), Wait)


def test_a_round_waits_for_the_one_before_it():
    step = next_step(rules(), Facts(is_started=False, is_aggregating=True))

    assert step == Wait("the round before it, which is being aggregated")


def test_a_round_waits_for_clients_to_register():
    step = next_step(rules(goal=5), Facts(is_started=False))

    assert step == Wait("clients to register: 4 of 5")


def test_a_round_starts_without_a_cohort_where_everyone_may_answer():
    assert next_step(rules(deadline_s=60), Facts(is_started=False)) == Start(60.0)


def test_a_round_that_chooses_clients_starts_with_its_cohort():
    step = next_step(choosing(goal=2, over_selection=1.0), Facts(is_started=False))

    assert isinstance(step, Start)
    assert step.cohort is not None
    assert len(step.cohort.chosen) == 2
    assert len(step.cohort.refused) == 2


def test_a_round_waits_for_clients_that_may_be_asked():
    narrow = replace(choosing(goal=2), filters=[filters.build("tags", {"any_of": ["fast"]})])

    step = next_step(narrow, Facts(is_started=False))

    assert isinstance(step, Wait)
    assert step.reason == "clients that may be asked: 0 of 2"
    assert step.cohort is not None
    assert set(step.cohort.refused) == {"ann", "bob", "cy", "di"}


@pytest.mark.parametrize(
    ("how", "facts"),
    [
        (rules(), Facts(updates=1)),
        (rules(goal=3), Facts(updates=3)),
        (rules(("all_clients", {})), Facts(updates=4)),
        (rules(max_updates=2, min_updates=2), Facts(updates=2)),
        (rules(goal=4), Facts(updates=2, num_asked=2)),
        (rules(goal=3, quorum=2, deadline_s=1), Facts(updates=2, deadline_passed=True)),
    ],
    ids=["one", "goal", "requirement", "full", "all asked", "quorum at the deadline"],
)
def test_a_round_that_has_all_it_waits_for_closes(how: Rules, facts: Facts):
    assert next_step(how, facts) == Close()


def test_a_round_that_lacks_an_answer_waits():
    assert next_step(rules(goal=3, deadline_s=60), Facts(updates=2)) == Wait()


def test_a_round_that_missed_its_quorum_is_opened_again_as_often_as_it_may():
    missed = Facts(updates=1, deadline_passed=True, num_reopenings=2)

    assert next_step(rules(goal=3, quorum=2, deadline_s=1), missed) == Reopen()
    assert next_step(rules(goal=3, quorum=2, deadline_s=1, max_reopenings=3), missed) == Reopen()
    ended = next_step(rules(goal=3, quorum=2, deadline_s=1, max_reopenings=2), missed)
    assert ended == Fail("quorum_not_met", "1 updates at its deadline are not enough")


def test_a_round_that_missed_its_quorum_ends_the_experiment_where_the_policy_says_so():
    missed = Facts(updates=0, deadline_passed=True)

    step = next_step(rules(goal=3, deadline_s=1, on_failed_quorum="end"), missed)

    assert step == Fail("quorum_not_met", "0 updates at its deadline are not enough")


class Explosive(Facts):
    """Facts of which a waiting round must not look up the dear ones."""

    def candidates(self) -> Iterable[Candidate]:
        raise AssertionError("a round without a cohort asked for candidates")

    def progress(self) -> RoundFacts:
        raise AssertionError("a round that has not started asked for its answers")


def test_a_fact_that_decides_nothing_is_not_looked_up():
    assert next_step(rules(), Explosive(is_started=False)) == Start(None)
    assert next_step(rules(), Explosive(is_running=False)) == Wait()


policies = st.fixed_dictionaries(
    {},
    optional={
        "goal": st.integers(2, 4),
        "min_updates": st.integers(1, 2),
        "max_reopenings": st.integers(0, 2),
        "on_failed_quorum": st.sampled_from(["reopen", "end"]),
        "deadline_s": st.just(5),
    },
)
any_facts = st.builds(
    Facts,
    reason=st.sampled_from([None, None, "num_rounds"]),
    is_running=st.booleans(),
    is_started=st.booleans(),
    is_aggregating=st.booleans(),
    num_clients=st.integers(0, 4),
    num_reopenings=st.integers(0, 3),
    updates=st.integers(0, 4),
    num_asked=st.none() | st.integers(1, 4),
    deadline_passed=st.booleans(),
)


@given(policies, any_facts, st.booleans())
def test_whatever_happens_a_step_keeps_the_laws_of_rounds(
    policy: dict[str, object], facts: Facts, chooses: bool
):
    how = choosing(**policy) if chooses else rules(**policy)

    step = next_step(how, facts)

    assert step == next_step(how, facts)
    assert isinstance(step, End) == (facts.reason is not None)
    if isinstance(step, Close):
        assert facts.is_running
        assert facts.is_started or not facts.is_aggregating
        assert facts.updates >= how.closing.policy.min_updates
    if isinstance(step, Start):
        assert not facts.is_started
        assert not facts.is_aggregating
        assert (step.cohort is not None) == chooses
    if isinstance(step, Reopen | Fail):
        assert facts.is_started
        assert facts.deadline_passed


def test_every_state_is_reached_and_the_ended_ones_are_left_by_nothing():
    reached = {after for following in TRANSITIONS.values() for after in following}

    assert reached == set(TRANSITIONS) - {"collecting"}
    assert {state for state, following in TRANSITIONS.items() if not following} == {
        "published",
        "cancelled",
        "failed",
    }
