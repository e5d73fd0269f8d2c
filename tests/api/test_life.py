"""`models/<id>/…`: starting, pausing and ending an experiment, going back, going on elsewhere, its history."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from fma_django.experiments.changes import change_federated_model
from fma_django.models import FederatedModel, ModelAggregate
from tests.api.callers import API
from tests.records import WEIGHTS, make_aggregate, make_client, make_model, send_update

pytestmark = [pytest.mark.django_db, pytest.mark.untraced]


def post(caller: APIClient, model: FederatedModel, what: str, body: Any = None, **headers: str) -> Any:
    return caller.post(f"{API}models/{model.pk}/{what}/", body, headers=headers)


def test_the_states_of_an_experiment(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, allow_aggregation=False)
    url = f"{API}models/{model.pk}/"
    assert owner.get(url).json()["state"] == "created"

    for what, state in [
        ("start", "running"),
        ("pause", "paused"),
        ("resume", "running"),
        ("cancel", "ended"),
        ("start", "running"),
    ]:
        answer = post(owner, model, what)
        assert (answer.status_code, answer.json()["state"]) == (200, state), what
        assert answer.json() == owner.get(url).json()


def test_an_experiment_that_was_cancelled_says_so(owner: APIClient, model: FederatedModel) -> None:
    said = post(owner, model, "cancel").json()

    assert (said["end_reason"], said["allow_aggregation"]) == ("cancelled", False)
    assert said["started_on"] < said["ended_on"]


@pytest.mark.parametrize("what", ["pause", "resume", "cancel"])
def test_what_has_ended_can_only_be_started(owner: APIClient, model: FederatedModel, what: str) -> None:
    post(owner, model, "cancel")

    answer = post(owner, model, what)

    assert (answer.status_code, answer.json()["code"]) == (409, "experiment_ended")


def test_what_is_over_by_its_policy_does_not_start_again(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, round_policy={"num_rounds": 1})
    make_aggregate(model)

    answer = post(owner, model, "start")

    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_transition")
    assert "num_rounds" in answer.json()["detail"]


def test_an_update_to_what_has_ended_is_refused(owner: APIClient, device: APIClient, model: Any) -> None:
    post(owner, model, "cancel")

    answer = device.post(f"{API}model_updates/", {"federated_model": model.pk, "data": [1.0]})

    assert (answer.status_code, answer.json()["code"]) == (409, "experiment_ended")


def test_a_model_goes_on_from_an_earlier_aggregate(owner: APIClient, device: APIClient, model: Any) -> None:
    first, second = make_aggregate(model, value=1), make_aggregate(model, value=2)

    answer = post(owner, model, "rewind", {"aggregate": first.pk})

    assert (answer.status_code, answer.json()["parent"]) == (201, first.pk)
    assert answer.json()["sha256"] == first.sha256
    newest = device.get(f"{API}models/{model.pk}/get_latest_aggregate/").json()
    assert newest["id"] == answer.json()["id"]
    second.refresh_from_db()
    assert second.is_abandoned


@pytest.mark.parametrize("aggregate", [None, 0, -1, "x", 10**6, 2**63, 2**70, True, [1]])
def test_rewinding_to_nothing_is_refused(owner: APIClient, model: FederatedModel, aggregate: Any) -> None:
    make_aggregate(model)

    answer = post(owner, model, "rewind", {"aggregate": aggregate})

    assert answer.status_code == 400
    assert answer.json()["aggregate"]
    assert ModelAggregate.objects.count() == 1


def test_aggregates_of_other_models_are_not_known(owner: APIClient, model: FederatedModel) -> None:
    other = make_aggregate(make_model())

    for what in ("rewind", "clone"):
        answer = post(owner, model, what, {"aggregate": other.pk})
        assert answer.status_code == 400
        assert answer.json()["aggregate"]


def test_a_clone_has_the_configuration_and_nothing_else(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, initial_model=WEIGHTS, stages=[{"name": "clip_norm", "max_norm": 2.0}], seed=7)
    make_aggregate(model, make_client(model).client)

    answer = post(owner, model, "clone")

    said = answer.json()
    assert answer.status_code == 201
    assert (said["name"], said["state"], said["clients"]) == ("experiment (clone)", "created", [])
    assert (said["stages"], said["seed"]) == (model.stages, 7)
    weights = owner.get(f"{API}models/{said['id']}/get_latest_model/").json()
    assert weights == {"values": WEIGHTS, "aggregate": None}


def test_a_clone_begins_where_it_is_told_with_the_same_clients(owner: APIClient, model: Any) -> None:
    ann = make_client(model)
    aggregate = make_aggregate(model, ann.client, value=3)
    body = {"name": "again", "aggregate": aggregate.pk, "clients": True}

    said = post(owner, model, "clone", body).json()

    assert (said["name"], said["clients"]) == ("again", [str(ann.client.pk)])
    found = owner.get(f"{API}models/{said['id']}/get_current_artifact/").json()
    assert found["sha256"] == aggregate.sha256


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"name": ""}, "name"), ({"name": "n" * 256}, "name"), ({"clients": "some"}, "clients")],
)
def test_a_clone_that_cannot_be_is_refused(
    owner: APIClient, model: FederatedModel, wrong: Any, field: str
) -> None:
    answer = post(owner, model, "clone", wrong)

    assert answer.status_code == 400
    assert answer.json()[field]
    assert FederatedModel.objects.count() == 1


def test_the_history_says_who_changed_what(owner: APIClient, alice: Any) -> None:
    model = make_model(alice)
    owner.patch(f"{API}models/{model.pk}/", {"aggregator": "median", "name": "not of the configuration"})
    owner.patch(f"{API}models/{model.pk}/", {"round_policy": {"goal": 2}})

    newest, second, first = owner.get(f"{API}models/{model.pk}/history/").json()

    assert [each["number"] for each in (newest, second, first)] == [3, 2, 1]
    assert (newest["changed_by"], first["changes"]) == ("alice", {})
    assert second["changes"] == {"aggregator": {"before": "mean", "after": "median"}}
    assert newest["changes"] == {"round_policy": {"before": {}, "after": {"goal": 2}}}
    assert newest["configuration"]["aggregator"] == "median"
    assert owner.get(f"{API}models/{model.pk}/").json()["config_version"] == 3


def test_the_pages_of_the_history_fit_together(owner: APIClient, alice: Any) -> None:
    model = make_model(alice)
    for goal in range(1, 4):
        owner.patch(f"{API}models/{model.pk}/", {"round_policy": {"goal": goal}})

    page = owner.get(f"{API}models/{model.pk}/history/?page_size=2")

    assert [each["changes"]["round_policy"]["before"] for each in page.json()] == [{"goal": 2}, {"goal": 1}]
    assert 'rel="next"' in page.headers["Link"]


def test_a_round_that_has_begun_keeps_its_version(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, requirement="require_x_updates", requirement_args=[2])
    send_update(model, make_client(model).client)
    url = f"{API}models/{model.pk}/"

    owner.patch(url, {"client_config": {"lr": 1.0}})

    current = owner.get(f"{url}rounds/1/").json()
    assert (current["config_version"], current["client_config"]) == (1, {})
    send_update(model, make_client(model).client)
    from tests.records import aggregate_now

    aggregate_now(model)
    following = owner.get(f"{url}rounds/2/").json()
    assert (following["config_version"], following["client_config"]) == (2, {"lr": 1.0})


def test_a_round_is_cancelled_and_the_next_one_opens(owner: APIClient, model: FederatedModel) -> None:
    answer = owner.post(f"{API}models/{model.pk}/rounds/1/cancel/")

    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    again = owner.post(f"{API}models/{model.pk}/rounds/1/cancel/")
    assert (again.status_code, again.json()["code"]) == (409, "invalid_transition")
    assert owner.post(f"{API}models/{model.pk}/rounds/9/cancel/").status_code == 404
    assert owner.get(f"{API}models/{model.pk}/rounds/2/").json()["state"] == "collecting"


def test_a_round_says_what_it_waits_for(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, round_policy={"goal": 2, "deadline_s": 60})
    url = f"{API}models/{model.pk}/rounds/1/"
    make_client(model)
    waiting = owner.get(url).json()
    make_client(model)
    started = owner.get(url).json()

    assert (waiting["waits_for"], waiting["started_on"]) == ("clients to register: 1 of 2", None)
    assert (started["waits_for"], started["num_reopenings"]) == ("", 0)
    assert started["started_on"] < started["deadline_at"]


def test_only_the_owner_sees_what_the_updates_measured(
    owner: APIClient, device: APIClient, model: FederatedModel
) -> None:
    url = f"{API}models/{model.pk}/rounds/1/"

    assert owner.get(url).json()["metrics"] == {}
    assert device.get(url).json()["metrics"] is None


def test_a_change_to_a_list_of_versions_costs_no_more(owner: APIClient, alice: Any) -> None:
    def cost(changes: int) -> int:
        model = make_model(alice)
        for goal in range(1, changes):
            change_federated_model(model, {"round_policy": {"goal": goal}}, by=alice)
        with CaptureQueriesContext(connection) as captured:
            answer = owner.get(f"{API}models/{model.pk}/history/?page_size=200")
        assert len(answer.json()) == changes
        return len(captured)

    assert cost(2) == cost(12) <= 5
