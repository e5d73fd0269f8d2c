"""Cohorts: the clients that a round asks, the condition it waits for, and the updates it takes."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from fma_django.clients.joining import join
from fma_django.errors import InvalidValue, LateUpdate, NotSelected, RoundFull
from fma_django.experiments import lifecycle
from fma_django.experiments.changes import change_federated_model
from fma_django.models import Client, FederatedModel, ModelUpdate, Organisation, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.rounds import deadlines
from tests.records import (
    WEIGHTS,
    aggregate_now,
    change_now,
    make_client,
    make_model,
    send_update,
    weights,
)

pytestmark = pytest.mark.django_db

RANDOM = {"name": "random"}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds whose aggregation was asked for."""
    rounds: list[int] = []
    monkeypatch.setattr("fma_django.queue.aggregate_on_commit", rounds.append)
    return rounds


def current(model: FederatedModel) -> Round:
    return model.rounds.get(state="collecting")


def choosing(goal: int = 2, factor: float = 1.0, **options: Any) -> FederatedModel:
    policy = {"goal": goal, "over_selection": factor, **options.pop("round_policy", {})}
    return make_model(initial_model=WEIGHTS, selector=RANDOM, seed=7, round_policy=policy, **options)


def chosen(model: FederatedModel) -> list[Client]:
    return [row.client for row in current(model).participations.filter(is_chosen=True).order_by("client_id")]


def others(model: FederatedModel) -> list[Client]:
    return list(model.clients.exclude(pk__in=[client.pk for client in chosen(model)]).order_by("pk"))


def pass_deadline(model: FederatedModel) -> None:
    Round.objects.filter(pk=current(model).pk).update(deadline_at=timezone.now() - timedelta(seconds=1))


def test_a_round_waits_for_enough_clients() -> None:
    model = choosing(goal=2)
    assert current(model).waits_for == "clients to register: 0 of 2"
    make_client(model)
    assert current(model).waits_for == "clients to register: 1 of 2"
    assert current(model).started_on is None
    make_client(model)
    started = current(model)
    assert (started.waits_for, started.num_asked) == ("", 2)
    assert started.started_on is not None


def test_clients_that_may_not_be_asked_do_not_start_a_round() -> None:
    model = choosing(goal=2, eligibility=[{"name": "tags", "any_of": ["fast"]}])
    for _ in range(3):
        make_client(model)
    assert current(model).waits_for == "clients that may be asked: 0 of 2"
    deadlines.look_at_the_time()
    assert current(model).started_on is None
    for client in model.clients.all()[:2]:
        client.tags.create(name="fast") if not client.tags.model.objects.exists() else client.tags.add(
            client.tags.model.objects.get()
        )
    deadlines.look_at_the_time()
    assert current(model).num_asked == 2
    refused = current(model).participations.get(is_chosen=False)
    assert refused.reason
    assert refused.detail


def test_over_selection_asks_more_than_the_goal() -> None:
    model = choosing(goal=2, factor=1.5, allow_aggregation=False)
    for _ in range(6):
        make_client(model)
    lifecycle.start(model)
    assert current(model).num_asked == 3
    assert current(model).participations.count() == 6


def test_the_same_seed_chooses_the_same_clients() -> None:
    model = choosing(goal=3, allow_aggregation=False)
    for _ in range(9):
        make_client(model)
    again = lifecycle.clone(model, developer=model.developer, clients=model.clients.all())
    other = lifecycle.clone(model, developer=model.developer, clients=model.clients.all())
    change_federated_model(other, {"seed": 8})
    for each in (model, again, other):
        lifecycle.start(each)
    assert chosen(again) == chosen(model)
    assert chosen(other) != chosen(model)


def test_an_update_of_a_client_that_was_not_chosen_is_refused() -> None:
    model = choosing(goal=1, allow_aggregation=False)
    for _ in range(3):
        make_client(model)
    lifecycle.start(model)
    with pytest.raises(NotSelected, match="not chosen for round 1"):
        send_update(model, others(model)[0])
    newcomer = make_client(model).client
    with pytest.raises(NotSelected, match="before this one registered"):
        send_update(model, newcomer)
    assert not ModelUpdate.objects.exists()


def test_a_round_closes_at_its_goal_and_the_next_cohort_is_chosen_after_its_publication(
    asked: list[int],
) -> None:
    model = choosing(goal=2)
    for _ in range(2):
        make_client(model)
    first = current(model)
    for number, client in enumerate(chosen(model)):
        assert len(asked) == 0, number
        send_update(model, client)
    assert asked == [first.pk]
    aggregate = aggregate_now(model)
    following = current(model)
    assert (following.number, following.parent, following.num_asked) == (2, aggregate, 2)
    assert first.participations.filter(was_late=False, answered_on__isnull=False).count() == 2


def test_a_join_says_all_that_a_client_needs() -> None:
    model = choosing(goal=1, client_config={"local_epochs": 3}, round_policy={"deadline_s": 60})
    client = make_client(model).client
    answer = join(model, client)
    assert (answer.is_accepted, answer.round, answer.client_config) == (True, 1, {"local_epochs": 3})
    assert answer.deadline_at == current(model).deadline_at
    assert answer.base_aggregate is None
    send_update(model, client)
    assert join(model, client).reason == "already_answered"


def test_a_join_that_is_not_accepted_says_why_and_when_to_ask_again() -> None:
    model = choosing(goal=2)
    client = make_client(model).client
    waiting = join(model, client)
    assert (waiting.is_accepted, waiting.reason) == (False, "not_started")
    assert waiting.retry_after_s is not None
    assert waiting.retry_after_s > 0
    lifecycle.pause(model)
    assert join(model, client).reason == "paused"
    lifecycle.cancel_experiment(model)
    ended = join(model, client)
    assert (ended.reason, ended.retry_after_s) == ("experiment_ended", None)


def test_clients_that_never_join_take_part_where_everyone_may() -> None:
    model = make_model(initial_model=WEIGHTS)
    send_update(model, make_client(model).client)
    assert aggregate_now(model).round.participations.count() == 0


@pytest.mark.parametrize("late_updates", ["refuse", "next_round"])
def test_a_late_update_is_refused_or_counts_for_the_next_round(late_updates: str) -> None:
    policy = {"deadline_s": 60, "quorum": 1, "late_updates": late_updates}
    model = choosing(goal=2, round_policy=policy)
    for _ in range(2):
        make_client(model)
    quick, slow = chosen(model)
    first = current(model)
    send_update(model, quick)
    pass_deadline(model)
    aggregate_now(model)
    change_now(model, {"round_policy": {**model.round_policy, "goal": 1, "over_selection": 1.0}})
    if slow in chosen(model):  # then it is asked again, and not late
        return
    if late_updates == "refuse":
        with pytest.raises(LateUpdate):
            send_update(model, slow)
        return
    update = send_update(model, slow)
    assert (update.round.number, update.status) == (2, UpdateStatus.PENDING)
    assert first.participations.get(client=slow).was_late
    # The same again, because its answer got lost.
    assert send_update(model, slow).pk == update.pk


def test_late_updates_of_everyone_are_known_by_their_base() -> None:
    model = make_model(initial_model=WEIGHTS, round_policy={"late_updates": "refuse"})
    ann, bob = make_client(model).client, make_client(model).client
    send_update(model, ann)
    first = aggregate_now(model)
    send_update(model, ann, weights(2.0), base_aggregate=first)
    second = aggregate_now(model)
    with pytest.raises(LateUpdate):
        send_update(model, bob, base_aggregate=first)
    assert send_update(model, bob, base_aggregate=second).status == UpdateStatus.PENDING


def test_who_is_asked_again_must_train_again() -> None:
    model = choosing(goal=1, round_policy={"late_updates": "refuse"})
    client = make_client(model).client
    send_update(model, client)
    first = aggregate_now(model)
    send_update(model, client, weights(2.0), base_aggregate=first)
    second = aggregate_now(model)
    with pytest.raises(LateUpdate):
        send_update(model, client, weights(3.0), base_aggregate=first)
    assert send_update(model, client, weights(3.0), base_aggregate=second).status == UpdateStatus.PENDING


def test_a_full_round_takes_no_further_client() -> None:
    model = make_model(initial_model=WEIGHTS, round_policy={"max_updates": 1}, allow_aggregation=False)
    ann, bob = make_client(model).client, make_client(model).client
    send_update(model, ann)
    with pytest.raises(RoundFull, match="max_updates"):
        send_update(model, bob)
    send_update(model, ann, weights(2.0))
    assert current(model).num_updates == 1


def test_a_selector_that_chooses_some_needs_to_know_how_many() -> None:
    with pytest.raises(InvalidValue, match=r"round_policy\.goal") as caught:
        make_model(selector=RANDOM)
    assert caught.value.facts["field"] == "selector"


def test_organisations_can_be_a_quorum(asked: list[int]) -> None:
    model = make_model(initial_model=WEIGHTS, round_policy={"quorum_organisations": 2})
    people = [make_client(model).client for _ in range(3)]
    for name, client in zip(("north", "north", "south"), people, strict=True):
        client.organisation, _ = Organisation.objects.get_or_create(name=name)
        client.save()
    for client in people[:2]:
        send_update(model, client)
    assert asked == []
    send_update(model, people[2])
    assert asked == [current(model).pk]
