"""Rounds and experiments that end because time has passed."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from fma_django.experiments import lifecycle
from fma_django.models import Client, FederatedModel, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.rounds import deadlines
from tests.django.test_cohorts import asked, current, pass_deadline  # noqa: F401  # asked: autouse
from tests.records import WEIGHTS, aggregate_now, make_client, make_model, send_update

pytestmark = pytest.mark.django_db

POLICY = {"goal": 3, "deadline_s": 60, "quorum": 2}


def federation(**policy: Any) -> tuple[FederatedModel, list[Client]]:
    model = make_model(initial_model=WEIGHTS, round_policy={**POLICY, **policy})
    return model, [make_client(model).client for _ in range(3)]


def test_a_deadline_counts_from_the_start_of_the_round() -> None:
    model, _ = federation()
    started = current(model)
    assert started.started_on is not None
    assert started.deadline_at == started.started_on + timedelta(seconds=60)


def test_before_the_deadline_nothing_happens(asked: list[int]) -> None:  # noqa: F811
    model, people = federation()
    send_update(model, people[0])
    assert deadlines.fire_deadlines() == 0
    assert asked == []


def test_at_the_deadline_a_quorum_is_enough(asked: list[int]) -> None:  # noqa: F811
    model, people = federation()
    for client in people[:2]:
        send_update(model, client)
    pass_deadline(model)
    assert deadlines.fire_deadlines() == 1
    assert asked == [current(model).pk]
    # It is asked for once.
    assert deadlines.fire_deadlines() == 0
    assert aggregate_now(model).round.num_updates == 2


def test_without_a_quorum_a_round_is_opened_again_and_what_was_sent_counts(asked: list[int]) -> None:  # noqa: F811
    model, people = federation()
    first = send_update(model, people[0])
    pass_deadline(model)
    deadlines.fire_deadlines()
    again = current(model)
    assert (again.number, again.num_reopenings, again.num_updates) == (1, 1, 1)
    assert again.deadline_at is not None
    assert again.deadline_at > timezone.now()
    for client in people[1:]:
        send_update(model, client)
    assert asked == [again.pk]
    aggregate_now(model)
    first.refresh_from_db()
    assert first.status == UpdateStatus.COMPLETE


def test_a_cohort_that_is_opened_again_asks_more_clients() -> None:
    model = make_model(
        initial_model=WEIGHTS,
        selector={"name": "random"},
        round_policy={"goal": 2, "over_selection": 1.0, "deadline_s": 60, "quorum": 2},
        allow_aggregation=False,
    )
    for _ in range(6):
        make_client(model)
    lifecycle.start(model)
    before = set(current(model).participations.filter(is_chosen=True).values_list("client_id", flat=True))
    pass_deadline(model)
    deadlines.fire_deadlines()
    after = set(current(model).participations.filter(is_chosen=True).values_list("client_id", flat=True))
    assert (len(before), len(after), current(model).num_asked) == (2, 4, 4)
    assert before < after


@pytest.mark.parametrize("policy", [{"on_failed_quorum": "end"}, {"max_reopenings": 0}], ids=str)
def test_without_a_quorum_the_experiment_may_end(policy: dict[str, Any]) -> None:
    model, people = federation(**policy)
    update = send_update(model, people[0])
    pass_deadline(model)
    deadlines.fire_deadlines()
    failed = model.rounds.get()
    assert (failed.state, failed.failure_code) == (RoundState.FAILED, "quorum_not_met")
    model.refresh_from_db()
    assert (model.state, model.end_reason) == ("ended", "quorum_not_met")
    update.refresh_from_db()
    assert update.status == UpdateStatus.FAILED


def test_a_paused_experiment_keeps_the_time_that_its_round_has_left() -> None:
    model, _ = federation()
    deadline = current(model).deadline_at
    assert deadline is not None
    lifecycle.pause(model)
    FederatedModel.objects.filter(pk=model.pk).update(paused_on=timezone.now() - timedelta(seconds=500))
    pass_deadline(model)
    assert deadlines.fire_deadlines() == 0
    Round.objects.filter(pk=current(model).pk).update(deadline_at=deadline)
    lifecycle.start(model)
    moved = current(model).deadline_at
    assert moved is not None
    assert 499 < (moved - deadline).total_seconds() < 510


def test_an_experiment_ends_at_its_end_date() -> None:
    model = make_model(initial_model=WEIGHTS, round_policy={"end_date": "2020-01-01T00:00:00Z"})
    deadlines.look_at_the_time()
    model.refresh_from_db()
    assert (model.state, model.end_reason) == ("ended", "end_date")
    assert model.rounds.get().state == RoundState.CANCELLED


def test_a_round_whose_plugin_is_gone_is_looked_at_again_later() -> None:
    model, people = federation()
    send_update(model, people[0])
    pass_deadline(model)
    version = model.config_versions.get()
    model.config_versions.update(configuration={**version.configuration, "aggregator": "gone"})
    assert deadlines.fire_deadlines() == 1
    assert current(model).deadline_at > timezone.now()
    assert current(model).num_reopenings == 0
