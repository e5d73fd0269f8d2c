"""The base of an update: named, followed from the round that its client joined, or asked for."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from fma_django.clients.joining import join
from fma_django.errors import BaseAggregateRequired, LateUpdate
from fma_django.experiments.changes import change_federated_model
from fma_django.models import FederatedModel, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.record.weights import JsonBody
from fma_django.updates.facts import INITIAL, UpdateFacts
from tests.django.stored import weights_of
from tests.records import (
    WEIGHTS,
    aggregate_now,
    change_now,
    make_aggregate,
    make_client,
    make_model,
    send_body,
    send_update,
    weights,
)

pytestmark = pytest.mark.django_db

SGD: dict[str, Any] = {"optimiser": {"name": "sgd"}}
NEED_A_BASE: dict[str, dict[str, Any]] = {
    "an optimiser": SGD,
    "fednova": {"aggregator": "fednova"},
    "clipped steps": {"stages": [{"name": "clip_norm", "max_norm": 1.0}]},
    "fedbuff": {"aggregator": "fedbuff"},
    "fedasync": {"aggregator": "fedasync"},
    "median": {"aggregator": "median"},
    "scaffold": {"aggregator": "scaffold"},
    "ages": {"staleness": {"name": "polynomial"}},
}
NEED_NONE: dict[str, dict[str, Any]] = {
    "mean": {},
    "avg_values_if_data": {"aggregator": "avg_values_if_data"},
    "differences": {"update_kind": "delta", **SGD},
}


def second_round(**options: Any) -> FederatedModel:
    """A model with one aggregate, whose second round is open."""
    model = make_model(initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[1])
    make_aggregate(model)
    change_federated_model(model, options)
    return model


def send(model: FederatedModel, base: int | None = None) -> Any:
    facts = UpdateFacts(base, metrics={"num_steps": 3})
    return send_body(model, make_client(model).client, JsonBody(weights(2.0)), facts)


@pytest.mark.parametrize("case", NEED_A_BASE)
def test_an_update_without_a_base_is_refused_where_the_result_depends_on_it(case: str) -> None:
    model = second_round(**NEED_A_BASE[case])
    newest = model.aggregates.get().pk
    with pytest.raises(BaseAggregateRequired) as raised:
        send(model)
    assert f"the newest is {newest}), or 0 for the initial model" in raised.value.message
    assert raised.value.facts["field"] == "base_aggregate"


@pytest.mark.parametrize("case", NEED_NONE)
def test_a_plain_mean_goes_on_without_a_base(case: str) -> None:
    update = send(second_round(**NEED_NONE[case]))
    assert (update.status, update.base_aggregate_id) == (UpdateStatus.PENDING, None)


def test_nothing_need_be_named_before_the_first_aggregate() -> None:
    model = make_model(initial_model=WEIGHTS, **SGD)
    assert send(model).base_aggregate_id is None


def test_a_model_that_was_given_no_weights_measures_from_its_newest() -> None:
    model = make_model(requirement="require_x_updates", requirement_args=[1])
    make_aggregate(model)
    change_federated_model(model, {"aggregator": "median"})
    send(model)
    assert weights_of(aggregate_now(model))["b"].tolist() == [2.0, 2.0]


def test_a_client_that_joined_need_not_name_the_base() -> None:
    model = second_round(**SGD)
    client = make_client(model).client
    assert join(model, client).is_accepted
    update = send_update(model, client, weights(3.0))
    assert update.base_aggregate_id == model.aggregates.get().pk
    assert weights_of(aggregate_now(model))["b"].tolist() == [3.0, 3.0]


def test_a_straggler_without_a_base_trained_from_the_round_that_it_joined() -> None:
    model = second_round(**SGD)
    first = model.aggregates.get()
    slow = make_client(model).client
    assert join(model, slow).is_accepted
    send_update(model, make_client(model).client, weights(5.0), base_aggregate=first)
    aggregate_now(model)

    assert send_update(model, slow, weights(2.0)).base_aggregate_id == first.pk
    assert weights_of(aggregate_now(model))["b"].tolist() == [6.0, 6.0]  # 5 + (2 − 1)


def test_a_round_that_was_answered_says_nothing_of_the_next_update() -> None:
    model = second_round(**SGD)
    client = make_client(model).client
    join(model, client)
    send_update(model, client, weights(2.0))
    aggregate_now(model)
    with pytest.raises(BaseAggregateRequired):
        send_update(model, client, weights(3.0))


def test_a_round_that_a_client_left_and_forgot_says_nothing_of_its_next_update() -> None:
    model = second_round(**SGD)
    client = make_client(model).client
    join(model, client)
    newest = model.aggregates.get()
    for _ in range(2):
        send_update(model, make_client(model).client, weights(5.0), base_aggregate=newest)
        newest = aggregate_now(model)
        join(model, client)
        send_update(model, client, weights(2.0))
        newest = aggregate_now(model)

    with pytest.raises(BaseAggregateRequired):
        send_update(model, client, weights(3.0))


def test_a_straggler_that_has_answered_late_says_the_base_of_its_next_update() -> None:
    model = second_round(**SGD)
    first = model.aggregates.get()
    slow = make_client(model).client
    join(model, slow)
    send_update(model, make_client(model).client, weights(5.0), base_aggregate=first)
    aggregate_now(model)
    late = send_update(model, slow, weights(2.0))
    assert send_update(model, slow, weights(2.0)).base_aggregate_id == late.base_aggregate_id == first.pk
    aggregate_now(model)

    with pytest.raises(BaseAggregateRequired):
        send_update(model, slow, weights(3.0))


def test_twelve_rounds_of_a_client_that_names_no_base_do_not_go_astray() -> None:
    model = make_model(initial_model=WEIGHTS, **SGD)
    client = make_client(model).client
    for number in range(12):
        join(model, client)
        send_update(model, client, weights(1.0 - 0.5**number))
        merged = weights_of(aggregate_now(model))
        assert merged["b"].tolist() == [1.0 - 0.5**number] * 2


@pytest.mark.parametrize("base", [INITIAL, None])
def test_a_straggler_of_the_initial_model_is_late_when_it_is_chosen_again(base: int | None) -> None:
    policy = {"goal": 2, "over_selection": 1.0, "deadline_s": 60, "quorum": 1, "late_updates": "refuse"}
    model = make_model(initial_model=WEIGHTS, selector={"name": "random"}, round_policy=policy)
    quick, slow = (make_client(model).client for _ in range(2))
    send_update(model, quick)
    Round.objects.filter(federated_model=model).update(deadline_at=timezone.now() - timedelta(seconds=1))
    aggregate = aggregate_now(model)
    assert set(
        model.rounds.get(number=2).participations.filter(is_chosen=True).values_list("client", flat=True)
    ) == {
        quick.pk,
        slow.pk,
    }
    with pytest.raises(LateUpdate):
        send_update(model, slow, base_aggregate=base)
    assert send_update(model, slow, base_aggregate=aggregate).status == UpdateStatus.PENDING


def test_an_update_that_waits_from_the_initial_model_is_dropped_when_late_ones_are_refused() -> None:
    model = second_round(requirement_args=[3])
    waiting = send(model, INITIAL)
    change_now(model, {"round_policy": {"late_updates": "refuse"}})
    waiting.refresh_from_db()
    assert waiting.status == UpdateStatus.INVALID
