"""Rounds that would wait for ever: edited when they had started, left by who was asked, full without who is needed."""

from typing import Any

import pytest

from fma_django.models import FederatedModel, Organisation
from fma_django.services import lifecycle
from fma_django.services.clients import revoke_client
from fma_django.services.federated_models import change_federated_model
from fma_django.services.joining import join
from tests.django.test_cohorts import RANDOM, asked, choosing, chosen, current  # noqa: F401  # asked: autouse
from tests.records import WEIGHTS, aggregate_now, make_client, make_model, send_update

pytestmark = pytest.mark.django_db

CHOOSES: dict[str, Any] = {"selector": RANDOM, "round_policy": {"goal": 2, "over_selection": 1}}


def of_everyone(**options: Any) -> FederatedModel:
    model = make_model(initial_model=WEIGHTS, **options)
    for _ in range(4):
        make_client(model)
    return model


def test_a_round_that_is_told_to_choose_clients_before_anybody_came_chooses_them() -> None:
    model = of_everyone()
    assert current(model).started_on is not None
    change_federated_model(model, CHOOSES)
    assert current(model).num_asked == 2
    for client in chosen(model):
        assert join(model, client).is_accepted
        send_update(model, client)
    aggregate_now(model)


def test_a_paused_round_that_is_told_to_choose_clients_chooses_them_when_it_goes_on() -> None:
    model = of_everyone(requirement="all_clients")
    send_update(model, model.clients.all()[0])
    lifecycle.pause(model)
    change_federated_model(model, CHOOSES)
    assert current(model).num_asked is None
    lifecycle.start(model)
    assert current(model).num_asked == 2


def test_a_paused_round_that_is_told_to_let_everyone_answer_does_not_wait_for_its_cohort() -> None:
    model = of_everyone(**CHOOSES)
    lifecycle.pause(model)
    change_federated_model(model, {"selector": {"name": "everyone"}, "round_policy": {}})
    lifecycle.start(model)
    assert current(model).num_asked is None
    send_update(model, model.clients.all()[0])
    aggregate_now(model)


def test_a_deadline_that_is_given_to_the_open_round_runs() -> None:
    model = of_everyone()
    change_federated_model(model, {"round_policy": {"goal": 3, "quorum": 1, "deadline_s": 60}})
    assert current(model).deadline_at is not None
    change_federated_model(model, {"round_policy": {"goal": 3}})
    assert current(model).deadline_at is None


def test_a_full_round_still_takes_the_organisation_that_it_waits_for() -> None:
    model = make_model(initial_model=WEIGHTS, round_policy={"max_updates": 2, "quorum_organisations": 2})
    first, second, third = (make_client(model).client for _ in range(3))
    model.clients.filter(pk__in=(first.pk, second.pk)).update(
        organisation=Organisation.objects.create(name="a")
    )
    model.clients.filter(pk=third.pk).update(organisation=Organisation.objects.create(name="b"))
    send_update(model, first)
    send_update(model, second)
    assert join(model, third).is_accepted
    send_update(model, third)
    aggregate_now(model)


def test_a_cohort_that_somebody_left_waits_for_the_others() -> None:
    model = make_model(initial_model=WEIGHTS, selector={"name": "poisson", "q": 1.0})
    change_federated_model(model, {"allow_aggregation": False})
    for _ in range(3):
        make_client(model)
    lifecycle.start(model)
    stays, also, leaves = chosen(model)
    send_update(model, stays)
    send_update(model, also)
    revoke_client(leaves)
    aggregate_now(model)
