"""When rounds close and experiments end: the table of decisions, and laws."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fma_core.errors import InvalidParameter
from fma_core.rounds.policy import Answers, RoundPolicy, Verdict

NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)

CASES: list[tuple[dict[str, Any], dict[str, Any], int, Verdict]] = [
    # policy, answers, the strategy's minimum, what is decided
    ({}, {"num_updates": 1}, 1, "close"),
    ({}, {"num_updates": 1, "requirement_met": False}, 1, "wait"),
    ({}, {"num_updates": 4}, 5, "wait"),
    ({"goal": 3}, {"num_updates": 2}, 1, "wait"),
    ({"goal": 3}, {"num_updates": 3, "requirement_met": False}, 1, "close"),
    ({"goal": 3}, {"num_updates": 2, "num_asked": 2}, 1, "close"),
    ({"goal": 9, "max_updates": 9}, {"num_updates": 9}, 1, "close"),
    ({"goal": 3, "deadline_s": 9, "quorum": 2}, {"num_updates": 2}, 1, "wait"),
    ({"goal": 3, "deadline_s": 9, "quorum": 2}, {"num_updates": 2, "deadline_passed": True}, 1, "close"),
    (
        {"goal": 3, "deadline_s": 9, "quorum": 2},
        {"num_updates": 1, "deadline_passed": True},
        1,
        "quorum_not_met",
    ),
    ({"goal": 3, "deadline_s": 9}, {"num_updates": 1, "deadline_passed": True}, 1, "close"),
    ({"goal": 3, "deadline_s": 9}, {"num_updates": 0, "deadline_passed": True}, 1, "quorum_not_met"),
    ({"goal": 3, "deadline_s": 9}, {"num_updates": 2, "deadline_passed": True}, 3, "quorum_not_met"),
    ({"quorum_organisations": 2}, {"num_updates": 5, "by_organisation": {"a": 4, "": 1}}, 1, "wait"),
    ({"quorum_organisations": 2}, {"num_updates": 5, "by_organisation": {"a": 4, "b": 1}}, 1, "close"),
    (
        {"quorum_organisations": 2, "quorum_per_organisation": 2},
        {"num_updates": 5, "by_organisation": {"a": 4, "b": 1}},
        1,
        "wait",
    ),
]


@pytest.mark.parametrize(("policy", "answers", "min_updates", "expected"), CASES)
def test_what_is_decided(
    policy: dict[str, Any], answers: dict[str, Any], min_updates: int, expected: Verdict
) -> None:
    decided = RoundPolicy(**policy).verdict(Answers(**answers), min_updates=min_updates)
    assert decided == expected


policies = st.builds(
    lambda goal, quorum, deadline: RoundPolicy(
        goal=goal, quorum=min(quorum, goal), deadline_s=deadline, min_updates=1
    ),
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(1, 100),
)


@given(policies, st.integers(0, 30), st.integers(1, 10))
def test_a_passed_deadline_never_waits(policy: RoundPolicy, num_updates: int, min_updates: int) -> None:
    answers = Answers(num_updates=num_updates, deadline_passed=True)
    assert policy.verdict(answers, min_updates=min_updates) != "wait"


@given(policies, st.integers(0, 30), st.integers(1, 10), st.booleans())
def test_one_update_more_never_opens_what_was_closed(
    policy: RoundPolicy, num_updates: int, min_updates: int, deadline_passed: bool
) -> None:
    def decided(count: int) -> Verdict:
        return policy.verdict(
            Answers(num_updates=count, deadline_passed=deadline_passed), min_updates=min_updates
        )

    if decided(num_updates) == "close":
        assert decided(num_updates + 1) == "close"
        assert num_updates >= min_updates


@given(policies)
def test_json_gives_an_equal_policy_again(policy: RoundPolicy) -> None:
    assert RoundPolicy.from_json(policy.to_json()) == policy


@pytest.mark.parametrize(
    ("goal", "factor", "size"), [(10, 1.3, 13), (10, 1.0, 10), (1, 1.3, 2), (3, 1.1, 4), (100, 1.1, 110)]
)
def test_a_cohort_is_the_goal_and_some_more(goal: int, factor: float, size: int) -> None:
    assert RoundPolicy(goal=goal, over_selection=factor).cohort_size == size


ENDINGS: list[tuple[dict[str, Any], int, list[float | None], str | None]] = [
    ({}, 1000, [], None),
    ({"num_rounds": 3}, 2, [], None),
    ({"num_rounds": 3}, 3, [], "num_rounds"),
    ({"end_date": "2027-01-31T12:00:00Z"}, 0, [], "end_date"),
    ({"end_date": "2027-01-31T12:00:01Z"}, 0, [], None),
    ({"end_date": "2027-01-31T13:00:00+01:00"}, 0, [], "end_date"),
    ({"metric": "f1", "target": 0.9}, 2, [0.5, 0.9], "target_metric"),
    ({"metric": "f1", "target": 0.9}, 2, [0.95, 0.8], None),
    ({"metric": "loss", "target": 0.1, "metric_better": "lower"}, 2, [0.5, 0.09], "target_metric"),
    ({"metric": "loss", "target": 0.1, "metric_better": "lower"}, 1, [None], None),
    ({"metric": "f1", "patience": 2}, 3, [0.5, 0.4, 0.5], "no_improvement"),
    ({"metric": "f1", "patience": 2}, 4, [0.5, 0.4, 0.6, 0.5], None),
    ({"metric": "f1", "patience": 2, "min_improvement": 0.2}, 3, [0.5, 0.6, 0.65], "no_improvement"),
]


@pytest.mark.parametrize(("policy", "num_aggregates", "values", "expected"), ENDINGS)
def test_when_an_experiment_is_over(
    policy: dict[str, Any], num_aggregates: int, values: list[float | None], expected: str | None
) -> None:
    found = RoundPolicy(**policy).end_reason(num_aggregates=num_aggregates, values=values, now=NOW)
    assert found == expected


@pytest.mark.parametrize(
    ("said", "parameter", "message"),
    [
        ({"gaol": 3}, "gaol", "known are goal"),
        ({"goal": 0}, "goal", "at least 1"),
        ({"goal": 2.5}, "goal", "integer"),
        ({"goal": 3, "quorum": 4, "deadline_s": 1}, "quorum", "at most goal"),
        ({"quorum": 1}, "quorum", "deadline_s"),
        ({"goal": 3, "max_updates": 2}, "goal", "max_updates"),
        ({"goal": 3, "min_updates": 4}, "min_updates", "at most goal"),
        ({"deadline_s": 0}, "deadline_s", "greater than 0"),
        ({"late_updates": "maybe"}, "late_updates", "refuse"),
        ({"end_date": "tomorrow"}, "end_date", "ISO 8601"),
        ({"end_date": "2027-01-31T12:00:00"}, "end_date", "time zone"),
        ({"target": 0.5}, "target", "metric"),
        ({"patience": 3}, "patience", "metric"),
        ([], None, "must be an object"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_its_name(said: Any, parameter: str | None, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message) as caught:
        RoundPolicy.from_json(said)
    assert caught.value.facts.get("parameter") == parameter
