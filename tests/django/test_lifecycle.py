"""The life of an experiment, and the versions of its configuration."""

from typing import Any

import pytest

from fma_core.errors import FMAError
from fma_django.errors import ExperimentEnded, InvalidTransition, InvalidValue
from fma_django.evaluations.scores import receive_score
from fma_django.experiments import lifecycle
from fma_django.experiments.changes import change_federated_model
from fma_django.models import FederatedModel, ModelAggregate
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.weights import JsonBody
from fma_django.rounds import claiming, leases, publishing
from fma_django.rounds.verification import verify_round
from fma_django.updates.intake import UpdateFacts
from tests.django.stored import weights_of
from tests.django.test_cohorts import asked, current  # noqa: F401  # asked: autouse
from tests.records import (
    WEIGHTS,
    aggregate_now,
    make_client,
    make_model,
    make_user,
    received,
    send_body,
    send_update,
    weights,
)

pytestmark = pytest.mark.django_db

FEDADAM = {"name": "fedadam"}


def played(model: FederatedModel, *values: float) -> list[ModelAggregate]:
    client = model.clients.first() or make_client(model).client
    aggregates = []
    for value in values:
        send_update(model, client, weights(value), base_aggregate=newest(model))
        aggregates.append(aggregate_now(model))
    return aggregates


def newest(model: FederatedModel) -> ModelAggregate | None:
    return model.aggregates.order_by("-pk").first()


# Start, pause, cancel


def test_an_experiment_is_created_running_paused_running_and_ended(asked: list[int]) -> None:  # noqa: F811
    model = make_model(initial_model=WEIGHTS, allow_aggregation=False)
    assert model.state == "created"
    send_update(model, make_client(model).client)
    assert asked == []
    assert lifecycle.start(model).state == "running"
    assert asked == [current(model).pk]
    assert lifecycle.pause(model).state == "paused"
    assert claiming.claim(current(model).pk) is None
    assert lifecycle.start(model).state == "running"
    aggregate_now(model)
    assert lifecycle.cancel_experiment(model).state == "ended"
    assert model.end_reason == "cancelled"


def test_an_ended_experiment_takes_no_update_and_can_be_started_again() -> None:
    model = make_model(initial_model=WEIGHTS)
    ann = make_client(model).client
    lifecycle.cancel_experiment(model)
    with pytest.raises(ExperimentEnded, match="cancelled"):
        send_update(model, ann)
    with pytest.raises(ExperimentEnded):
        change_federated_model(model, {"allow_aggregation": True})
    with pytest.raises(ExperimentEnded):
        lifecycle.pause(model)
    change_federated_model(model, {"name": "still editable"})
    lifecycle.start(model)
    send_update(model, ann)
    assert aggregate_now(model).round.number == 2


def test_what_is_being_aggregated_when_an_experiment_is_cancelled_is_published() -> None:
    model = make_model(initial_model=WEIGHTS)
    send_update(model, make_client(model).client)
    lease = claiming.claim(current(model).pk)
    assert lease is not None
    lifecycle.cancel_experiment(model)
    leases.release(lease)
    from fma_django.rounds.aggregation import aggregate_round

    assert aggregate_round(lease.round_id) is not None
    assert list(model.rounds.order_by("number").values_list("state", flat=True)) == ["published", "cancelled"]


# The end


def test_an_experiment_that_begins_again_during_a_publication_goes_on_from_what_is_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model(initial_model=WEIGHTS)
    send_update(model, make_client(model).client)
    lease = claiming.claim(current(model).pk)
    assert lease is not None
    lifecycle.cancel_experiment(model)
    real = ModelAggregate.objects.create

    def start_before(**row: Any) -> ModelAggregate:
        monkeypatch.undo()
        lifecycle.start(model)
        return real(**row)

    monkeypatch.setattr(ModelAggregate.objects, "create", start_before)
    aggregate = publishing.publish(lease, received("a" * 64, 8), metrics={}, uses={})
    assert current(model).parent == aggregate
    assert current(model).started_on is not None


def test_an_experiment_ends_after_its_rounds() -> None:
    model = make_model(initial_model=WEIGHTS, round_policy={"num_rounds": 2})
    played(model, 1.0, 2.0)
    model.refresh_from_db()
    assert (model.state, model.end_reason) == ("ended", "num_rounds")
    with pytest.raises(InvalidTransition, match="num_rounds"):
        lifecycle.start(model)
    change_federated_model(model, {"round_policy": {"num_rounds": 3}})
    lifecycle.start(model)
    played(model, 3.0)
    model.refresh_from_db()
    assert (model.state, model.aggregates.count()) == ("ended", 3)


def test_rounds_that_were_rewound_are_not_counted() -> None:
    model = make_model(initial_model=WEIGHTS, round_policy={"num_rounds": 3})
    first, _ = played(model, 1.0, 2.0)
    lifecycle.rewind(model, first)
    played(model, 2.0)
    model.refresh_from_db()
    assert model.state == "running"
    played(model, 3.0)
    model.refresh_from_db()
    assert model.state == "ended"


def test_a_target_of_the_training_metrics_ends_it() -> None:
    model = make_model(initial_model=WEIGHTS, round_policy={"metric": "f1", "target": 0.9})
    ann = make_client(model).client
    for value, state in ((0.5, "running"), (0.95, "ended")):
        current_model = FederatedModel.objects.get(pk=model.pk)
        send_body(current_model, ann, JsonBody(weights(value)), UpdateFacts(metrics={"f1": value}))
        merged = aggregate_now(model).round.metrics
        assert merged["f1"]["mean"] == value
        model.refresh_from_db()
        assert model.state == state
    assert model.end_reason == "target_metric"


def test_a_target_of_the_scores_ends_it_when_they_arrive() -> None:
    policy = {"metric": "f1", "target": 0.9, "metric_source": "validation"}
    model = make_model(initial_model=WEIGHTS, round_policy=policy)
    ann, bob = make_client(model).client, make_client(model).client
    (aggregate,) = played(model, 1.0)
    receive_score(aggregate, ann, {"f1": 0.85})
    model.refresh_from_db()
    assert model.state == "running"
    receive_score(aggregate, bob, {"f1": 0.99})
    model.refresh_from_db()
    assert (model.state, model.end_reason) == ("ended", "target_metric")


# Rewind and clone


def test_a_rewound_model_goes_on_from_the_earlier_aggregate() -> None:
    model = make_model(initial_model=WEIGHTS, optimiser=FEDADAM)
    first, second, third = played(model, 1.0, 2.0, 3.0)
    restored = lifecycle.rewind(model, first)
    assert (restored.parent, restored.sha256, restored.state_sha256) == (
        first,
        first.sha256,
        first.state_sha256,
    )
    for abandoned in (second, third):
        abandoned.refresh_from_db()
        assert abandoned.is_abandoned
    assert current(model).parent == restored
    # The same second round as before, from the same weights and the same state: the same bytes.
    (again,) = played(model, 2.0)
    assert (again.sha256, again.state_sha256) == (second.sha256, second.state_sha256)
    for number in (1, 2, 3, again.round.number):
        assert verify_round(model, number).is_equal


def test_updates_from_an_abandoned_branch_do_not_count() -> None:
    model = make_model(initial_model=WEIGHTS)
    ann = make_client(model).client
    first, second = played(model, 1.0, 2.0)
    lifecycle.rewind(model, first)
    update = send_update(model, ann, base_aggregate=second)
    assert update.status == UpdateStatus.INVALID
    assert "rewound" in update.status_reason
    assert send_update(model, ann, base_aggregate=first).status == UpdateStatus.PENDING


def test_where_a_model_cannot_be_rewound_to() -> None:
    model, other = make_model(initial_model=WEIGHTS), make_model(initial_model=WEIGHTS)
    first, second = played(model, 1.0, 2.0)
    (foreign,) = played(other, 1.0)
    with pytest.raises(InvalidValue, match="has no aggregate"):
        lifecycle.rewind(model, foreign)
    lifecycle.rewind(model, first)
    with pytest.raises(InvalidValue, match="abandoned"):
        lifecycle.rewind(model, second)
    send_update(model, model.clients.get())
    assert claiming.claim(current(model).pk) is not None
    with pytest.raises(InvalidTransition, match="being aggregated"):
        lifecycle.rewind(model, first)


def test_a_clone_has_the_configuration_and_the_weights() -> None:
    model = make_model(initial_model=WEIGHTS, optimiser=FEDADAM, round_policy={"num_rounds": 5}, seed=3)
    first, _ = played(model, 1.0, 2.0)
    eve = make_user("eve")
    made = lifecycle.clone(model, developer=eve, aggregate=first)
    assert made.configuration == model.configuration
    assert (made.state, made.developer, made.clients.count()) == ("created", eve, 0)
    assert made.current_artifact is not None
    assert made.current_artifact.sha256 == first.sha256
    plain = lifecycle.clone(model, developer=eve, name="b", clients=model.clients.all())
    assert plain.current_artifact is not None
    assert model.current_artifact is not None
    assert plain.current_artifact.sha256 == model.current_artifact.sha256
    assert (plain.name, plain.clients.count()) == ("b", 1)


# Versions


def test_each_round_names_the_configuration_that_it_ran_with() -> None:
    model = make_model(initial_model=WEIGHTS)
    ann = make_user("ann")
    played(model, 1.0)
    change_federated_model(model, {"client_config": {"local_epochs": 2}}, by=ann)
    change_federated_model(model, {"name": "not of the configuration"})
    played(model, 2.0)
    ran_with = model.rounds.order_by("number").values_list("number", "config_version__number")
    assert list(ran_with) == [(1, 1), (2, 2), (3, 2)]
    assert list(model.config_versions.values_list("number", "changed_by__username")) == [
        (2, "ann"),
        (1, model.developer.username),
    ]


def test_a_round_that_has_begun_keeps_its_configuration_to_its_end() -> None:
    model = make_model(initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[2])
    ann, bob = make_client(model).client, make_client(model).client
    send_update(model, ann, weights(1.0))
    change_federated_model(model, {"aggregator": "median", "update_kind": "delta", "requirement_args": [1]})
    send_update(model, bob, weights(2.0))
    aggregate = aggregate_now(model)
    assert weights_of(aggregate)["b"].tolist() == [1.5, 1.5]
    assert aggregate.round.strategy is not None
    assert aggregate.round.strategy["aggregator"]["name"] == "mean"
    send_update(model, ann, weights(2.0), base_aggregate=aggregate)
    assert weights_of(aggregate_now(model))["b"].tolist() == [3.5, 3.5]


@pytest.mark.parametrize("state", ["paused", "not begun"])
def test_otherwise_the_open_round_follows_at_once(state: str) -> None:
    model = make_model(initial_model=WEIGHTS)
    if state == "paused":
        lifecycle.pause(model)
        send_update(model, make_client(model).client)
    change_federated_model(model, {"aggregator": "median"})
    version = current(model).config_version
    assert version is not None
    assert version.number == 2


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"round_policy": {"gaol": 1}}, "round_policy"),
    ({"round_policy": {"quorum": 1}}, "round_policy"),
    ({"selector": {"name": "nobody"}}, "selector"),
    ({"selector": {"name": "poisson", "q": 2}}, "selector"),
    ({"eligibility": [{"name": "nothing"}]}, "eligibility"),
    ({"eligibility": {"name": "tags"}}, "eligibility"),
    ({"seed": -1}, "seed"),
    ({"seed": True}, "seed"),
    ({"client_config": {"learning_rate": {"$schedule": {"name": "nothing"}}}}, "client_config"),
    ({"client_config_overrides": [{"rounds": [3, 1], "set": {}}]}, "client_config_overrides"),
    ({"client_config_schema": {"type": "nothing"}}, "client_config_schema"),
]


@pytest.mark.parametrize(("said", "field"), WRONG, ids=str)
def test_what_cannot_work_is_refused_when_it_is_saved(said: dict[str, Any], field: str) -> None:
    model = make_model(initial_model=WEIGHTS)
    with pytest.raises(FMAError) as caught:
        change_federated_model(model, said)
    assert caught.value.facts["field"] == field
    model.refresh_from_db()
    assert model.config_versions.count() == 1


def test_cancelling_a_round_opens_the_next() -> None:
    model = make_model(initial_model=WEIGHTS, allow_aggregation=False)
    update = send_update(model, make_client(model).client)
    first = current(model)
    publishing.cancel(first)
    update.refresh_from_db()
    assert (first.state, update.status) == (RoundState.CANCELLED, UpdateStatus.INVALID)
    with pytest.raises(InvalidTransition):
        publishing.cancel(first)
