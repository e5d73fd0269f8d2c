"""Each touch of a round: what `advance` does about it, and what it leaves alone."""

import itertools
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from fma_core.rounds import life
from fma_django.clients.registration import revoke_client
from fma_django.evaluations.scores import receive_score
from fma_django.experiments import lifecycle
from fma_django.models import Client, FederatedModel, Round
from fma_django.rounds import advance as advancing
from fma_django.rounds import claiming, facts, publishing
from fma_django.rounds.aggregation import aggregate_round
from fma_django.rounds.deadlines import look_at_the_time
from tests.django.test_cohorts import RANDOM, asked, chosen, current  # noqa: F401  # asked: autouse
from tests.records import WEIGHTS, aggregate_now, make_client, make_model, received, send_update, weights

pytestmark = pytest.mark.django_db


def with_clients(number: int, **options: Any) -> tuple[FederatedModel, list[Client]]:
    model = make_model(initial_model=WEIGHTS, **options)
    return model, [make_client(model).client for _ in range(number)]


def waiting_for_clients_that_rested() -> tuple[FederatedModel, list[Client]]:
    """Round 2 of a model whose four clients were all asked for round 1, and rest; two of them have not answered."""
    model, _ = with_clients(
        4,
        allow_aggregation=False,
        selector=RANDOM,
        round_policy={"goal": 2, "over_selection": 2},
        eligibility=[{"name": "min_rounds_between_turns", "rounds": 5}],
    )
    lifecycle.start(model)
    people = chosen(model)
    for client in people[:2]:
        send_update(model, client)
    aggregate_now(model)
    assert current(model).waits_for == "clients that may be asked: 0 of 2"
    return model, people[2:]


def test_late_updates_close_a_round_that_finds_nobody_to_ask(asked: list[int]) -> None:  # noqa: F811
    model, late = waiting_for_clients_that_rested()

    for client in late:
        send_update(model, client, weights(2.0))

    waiting = current(model)
    assert waiting.ready_on is not None
    assert asked[-1] == waiting.pk
    assert aggregate_round(waiting.pk) is not None


def test_a_round_that_is_complete_before_its_turn_is_ready_and_is_asked_for_after_it(
    asked: list[int],  # noqa: F811
) -> None:
    model, (ann, bob) = with_clients(2)
    send_update(model, ann)
    lease = claiming.claim(current(model).pk)
    assert lease is not None
    asked.clear()

    send_update(model, bob, weights(2.0))

    assert current(model).ready_on is not None
    assert asked == []
    publishing.publish(lease, received("0" * 64, 1), metrics={}, uses={})
    assert asked == [current(model).pk]


def test_a_paused_round_that_is_no_longer_complete_is_not_ready() -> None:
    model, (ann,) = with_clients(1)
    send_update(model, ann)
    lifecycle.pause(model)
    assert current(model).ready_on is not None

    revoke_client(ann)

    assert current(model).ready_on is None


def test_a_score_asks_for_no_aggregation(asked: list[int]) -> None:  # noqa: F811
    policy = {"metric": "f1", "metric_source": "validation", "target": 2.0}
    model, people = with_clients(2, round_policy=policy)
    send_update(model, people[0])
    aggregate = aggregate_now(model)
    send_update(model, people[0], weights(2.0), base_aggregate=aggregate)
    asked.clear()

    for client in people:
        receive_score(aggregate, client, {"f1": 0.5})

    assert asked == []


def test_the_clock_asks_again_for_no_round_that_is_ready(asked: list[int]) -> None:  # noqa: F811
    model, (ann,) = with_clients(1, round_policy={"end_date": "2100-01-01T00:00:00Z"})
    send_update(model, ann)
    asked.clear()

    look_at_the_time()

    assert asked == []


def test_an_unstarted_round_with_an_end_date_is_drawn_for_once_a_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = {"goal": 2, "end_date": "2100-01-01T00:00:00Z"}
    with_clients(1, selector=RANDOM, round_policy=policy)
    looks = []
    monkeypatch.setattr(
        advancing, "next_step", lambda rules, facts: looks.append(facts) or life.next_step(rules, facts)
    )

    look_at_the_time()

    assert len(looks) == 1


@pytest.fixture
def with_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decision about a round meets a defect, in a plugin perhaps."""

    def broken(rules: Any, facts: Any) -> life.Step:
        raise ZeroDivisionError("a plugin's defect")

    monkeypatch.setattr(advancing, "next_step", broken)


def test_a_defect_of_the_next_round_undoes_no_publication(request: pytest.FixtureRequest) -> None:
    model, (ann,) = with_clients(1)
    send_update(model, ann)
    lease = claiming.claim(current(model).pk)
    assert lease is not None
    request.getfixturevalue("with_a_defect")

    publishing.publish(lease, received("0" * 64, 1), metrics={}, uses={})

    assert Round.objects.get(pk=lease.round_id).state == "published"
    assert current(model).waits_for == "ZeroDivisionError: a plugin's defect"


def test_a_defect_of_the_next_round_undoes_no_failure(request: pytest.FixtureRequest) -> None:
    model, (ann,) = with_clients(1)
    send_update(model, ann)
    lease = claiming.claim(current(model).pk)
    assert lease is not None
    request.getfixturevalue("with_a_defect")

    publishing.fail(lease, code="c", detail="d")

    assert Round.objects.get(pk=lease.round_id).state == "failed"


def test_a_defect_costs_no_update(request: pytest.FixtureRequest) -> None:
    model, (ann,) = with_clients(1)
    request.getfixturevalue("with_a_defect")

    update = send_update(model, ann)

    assert (update.status, current(model).num_updates) == (0, 1)


def test_a_deadline_that_cannot_be_judged_is_looked_at_again_later(request: pytest.FixtureRequest) -> None:
    model, _ = with_clients(1, round_policy={"goal": 2, "quorum": 1, "deadline_s": 60})
    late = timezone.now() - timedelta(seconds=1)
    Round.objects.filter(pk=current(model).pk).update(started_on=late, deadline_at=late)
    request.getfixturevalue("with_a_defect")

    advancing.advance(current(model))

    assert current(model).deadline_at == late + advancing.UNJUDGED_FOR


def test_a_deadline_that_passes_while_a_round_is_judged_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (ann, *_) = with_clients(3, round_policy={"goal": 3, "quorum": 1, "deadline_s": 60})
    send_update(model, ann)
    held = current(model)
    assert held.deadline_at is not None
    moments = itertools.chain(
        [held.deadline_at - timedelta(milliseconds=1)],
        itertools.repeat(held.deadline_at + timedelta(milliseconds=1)),
    )
    monkeypatch.setattr(facts, "timezone", SimpleNamespace(now=lambda: next(moments)))

    advancing.advance(held)

    assert current(model).deadline_at == held.deadline_at
