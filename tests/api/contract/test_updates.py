"""`model_updates/`: every line of the FMA v1 contract about what clients send."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel, ModelUpdate
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.rounds.aggregation import aggregate_round
from tests.api.callers import API, as_client
from tests.records import aggregate_now, make_aggregate, make_client, make_model, weights

UPDATES = f"{API}model_updates/"
pytestmark = [pytest.mark.django_db, pytest.mark.untraced]


def send(caller: APIClient, model: FederatedModel, data: Any = None, **said: Any) -> Any:
    asked = {"federated_model": model.pk, "data": weights() if data is None else data, **said}
    return caller.post(UPDATES, asked)


def test_an_update_answers_the_fields_of_fma(
    device: APIClient, ann: Registration, model: FederatedModel
) -> None:
    answer = send(device, model)

    assert answer.status_code == 201
    said = answer.json()
    assert {"id", "client", "federated_model", "data", "base_aggregate", "created_on"} <= said.keys()
    assert (said["client"], said["federated_model"], said["base_aggregate"]) == (
        str(ann.client.pk),
        model.pk,
        None,
    )
    assert "status" not in said
    assert "applied_aggregate" not in said


def test_an_update_keeps_what_is_said_of_it(
    device: APIClient, model: FederatedModel, ann: Registration
) -> None:
    base = make_aggregate(model, ann.client)

    said = send(device, model, base_aggregate=base.pk, num_examples=412, metrics={"loss": 0.25}).json()

    assert (said["base_aggregate"], said["num_examples"], said["metrics"]) == (base.pk, 412, {"loss": 0.25})
    assert said["round"] == 2


@pytest.mark.parametrize("weight", [0, -1, 2**53 + 1, 1.5, "many", None])
def test_num_examples_is_a_whole_number_from_1_to_2_53(
    device: APIClient, model: FederatedModel, weight: Any
) -> None:
    answer = send(device, model, num_examples=weight)

    assert answer.status_code == 400
    assert answer.json()["num_examples"]


@pytest.mark.parametrize("metrics", [[], "good", {"a": "x" * 70_000}, {"\x00": 1}, {"a": "\x00"}])
def test_metrics_are_a_small_object_that_can_be_kept(
    device: APIClient, model: FederatedModel, metrics: Any
) -> None:
    answer = send(device, model, metrics=metrics)

    assert answer.status_code == 400
    assert answer.json()["metrics"]


def test_the_client_of_an_update_is_the_caller_whatever_it_says(
    device: APIClient, ann: Registration, model: FederatedModel
) -> None:
    other = make_client(model)

    said = send(device, model, client=str(other.client.pk)).json()

    assert said["client"] == str(ann.client.pk)


def test_a_developer_names_the_client(owner: APIClient, ann: Registration, model: FederatedModel) -> None:
    answer = send(owner, model, client=str(ann.client.pk))

    assert answer.status_code == 201
    assert (answer.json()["client"], answer.json()["status"]) == (str(ann.client.pk), 0)
    assert send(owner, model).json()["client"]
    assert send(owner, model).status_code == 400


def test_a_developer_cannot_send_to_the_models_of_others(owner: APIClient) -> None:
    theirs = make_model()
    client = make_client(theirs).client

    answer = send(owner, theirs, client=str(client.pk))

    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_model")


def test_update_schema_refuses_under_data(device: APIClient, ann: Registration) -> None:
    model = make_model(update_schema={"type": "object", "required": ["w"]})
    device.post(f"{API}models/{model.pk}/register_client/")

    refused = send(device, model, {"v": [1.0]})
    taken = send(device, model, {"w": [1.0]})

    assert refused.status_code == 400
    assert "'w' is a required property" in refused.json()["data"][0]
    assert taken.status_code == 201
    assert model.model_updates.count() == 1


def test_update_schema_holds_for_safetensors_too(device: APIClient, ann: Registration) -> None:
    from fma_core.arrays.codecs.safetensors import encode
    from tests.api.callers import SAFETENSORS
    from tests.records import arrays

    model = make_model(update_schema={"type": "object", "required": ["v"]})
    device.post(f"{API}models/{model.pk}/register_client/")

    answer = device.generic("POST", f"{UPDATES}?federated_model={model.pk}", encode(arrays()), SAFETENSORS)

    assert answer.status_code == 400
    assert answer.json()["data"]


def test_a_schema_never_makes_the_server_fetch(device: APIClient, ann: Registration) -> None:
    model = make_model(update_schema={"$ref": "http://127.0.0.1:9/schema.json"})
    device.post(f"{API}models/{model.pk}/register_client/")

    answer = send(device, model)

    assert (answer.status_code, answer.json()["code"]) == (400, "schema_violation")


def test_an_owner_sees_status_and_where_an_update_went(
    owner: APIClient, model: FederatedModel, ann: Registration
) -> None:
    aggregate = make_aggregate(model, ann.client)

    (said,) = owner.get(UPDATES).json()

    assert (said["status"], said["applied_aggregate"]) == (2, aggregate.pk)
    assert owner.get(f"{UPDATES}{said['id']}/").json() == said


def test_a_client_sees_its_own_updates_only(
    device: APIClient, model: FederatedModel, ann: Registration
) -> None:
    own = send(device, model).json()
    other = send(as_client(make_client(model)), model).json()

    assert [row["id"] for row in device.get(UPDATES).json()] == [own["id"]]
    assert device.get(f"{UPDATES}{own['id']}/").json() == own
    assert device.get(f"{UPDATES}{other['id']}/").status_code == 404
    assert device.get(other["data"]).status_code == 404


def test_the_weights_of_an_update_are_behind_data(device: APIClient, model: FederatedModel) -> None:
    said = send(device, model, weights(7.0)).json()

    assert device.get(said["data"]).json() == weights(7.0)


@pytest.mark.parametrize(
    "data",
    [
        [1.0, 0.1, 1e-300, 5e-324, -0.0, 1.7976931348623157e308],
        [[1.0, 2.0], [3.0, 4.5]],
        [[1.0, 2.0], [3.0]],
        [[[1.0], [2.0]], [[3.0]], [4.0, 5.0]],
        {"a": [1.0], "b": [[2.0, 3.0]], "c": 4.0},
        {"ünicode/ключ": [0.1, 0.2]},
    ],
)
def test_json_comes_back_as_it_came(device: APIClient, ann: Registration, data: Any) -> None:
    """Update → aggregate of one update → newest model, in the same layout and to the last bit."""
    model = make_model(aggregator="average_layers")
    device.post(f"{API}models/{model.pk}/register_client/")
    sent = send(device, model, data)
    assert sent.status_code == 201, sent.content
    aggregate = aggregate_now(model)

    assert device.get(sent.json()["data"]).json() == data
    assert device.get(f"{API}models/{model.pk}/get_latest_model/").json()["values"] == data
    assert device.get(f"{API}model_aggregates/{aggregate.pk}/").json()["result"] == data


def test_whole_numbers_come_back_as_the_same_values(device: APIClient, model: FederatedModel) -> None:
    said = send(device, model, {"w": [1, 2, 2**53]}).json()

    assert device.get(said["data"]).json() == {"w": [1.0, 2.0, 2.0**53]}


def test_an_update_in_another_layout_than_the_models_is_refused(device: APIClient) -> None:
    model = make_model(initial_model=[[1.0, 2.0], [3.0]])
    device.post(f"{API}models/{model.pk}/register_client/")

    answer = send(device, model, {"w": [1.0]})

    assert answer.status_code in (400, 422)
    assert answer.json()["data"]


def test_without_a_requirement_one_update_is_enough(model: FederatedModel, ann: Registration) -> None:
    assert make_aggregate(model, ann.client).pk


def test_require_x_updates_waits_for_x_clients() -> None:
    model = make_model(requirement="require_x_updates", requirement_args=[2])
    first, second = make_client(model), make_client(model)

    send(as_client(first), model, weights(1.0))
    send(as_client(first), model, weights(2.0))  # the same client again is not another one
    assert aggregate_round(model.rounds.get().pk) is None

    send(as_client(second), model, weights(4.0))
    aggregate = aggregate_now(model)
    latest = as_client(first).get(f"{API}models/{model.pk}/get_latest_model/").json()
    assert latest == {"values": weights(3.0), "aggregate": aggregate.pk}


def test_all_clients_waits_for_everybody() -> None:
    model = make_model(requirement="all_clients")
    callers = [as_client(make_client(model)) for _ in range(3)]

    for caller in callers[:2]:
        send(caller, model)
        assert aggregate_round(model.rounds.get().pk) is None
    send(callers[2], model)

    assert aggregate_now(model).pk


def test_num_examples_weigh_the_mean() -> None:
    model = make_model(requirement="all_clients")
    first, second = make_client(model), make_client(model)

    send(as_client(first), model, weights(1.0), num_examples=3)
    send(as_client(second), model, weights(5.0), num_examples=1)
    aggregate_now(model)

    assert as_client(first).get(f"{API}models/{model.pk}/get_latest_model/").json()["values"] == weights(2.0)


def test_the_completing_update_asks_for_the_aggregation(
    device: APIClient, model: FederatedModel, monkeypatch: Any, django_capture_on_commit_callbacks: Any
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("django_q.tasks.async_task", lambda *task: asked.append(task))

    with django_capture_on_commit_callbacks(execute=True):
        send(device, model)

    assert asked == [("fma_django.work.tasks.aggregate", model.rounds.get().pk)]


def test_a_paused_model_accepts_and_waits_and_resuming_aggregates_at_once(
    owner: APIClient,
    device: APIClient,
    model: FederatedModel,
    monkeypatch: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("django_q.tasks.async_task", lambda *task: asked.append(task))
    url = f"{API}models/{model.pk}/"
    with django_capture_on_commit_callbacks(execute=True):
        assert owner.patch(url, {"allow_aggregation": False}).json()["allow_aggregation"] is False
        assert send(device, model).status_code == 201
    assert asked == []
    assert aggregate_round(model.rounds.get().pk) is None

    with django_capture_on_commit_callbacks(execute=True):
        assert owner.patch(url, {"allow_aggregation": True}).status_code == 200

    assert len(asked) == 1
    assert aggregate_now(model).pk


def test_furthest_base_agg_counts_only_the_newest_bases(ann: Registration, device: APIClient) -> None:
    model = make_model(furthest_base_agg=1)
    device.post(f"{API}models/{model.pk}/register_client/")
    first = make_aggregate(model, ann.client)  # nothing to train from yet: every base counts
    send(device, model, base_aggregate=first.pk)
    second = aggregate_now(model)

    stale = send(device, model, base_aggregate=first.pk)
    unsaid = send(device, model)
    fresh = send(device, model, base_aggregate=second.pk)

    assert [it.status_code for it in (stale, unsaid, fresh)] == [201, 201, 201]
    status = dict(ModelUpdate.objects.filter(round__number=3).values_list("pk", "status"))
    assert status == {
        stale.json()["id"]: UpdateStatus.INVALID,
        unsaid.json()["id"]: UpdateStatus.INVALID,
        fresh.json()["id"]: UpdateStatus.PENDING,
    }
    assert aggregate_now(model).parent == second


def test_a_stale_update_says_why_it_does_not_count(
    owner: APIClient, device: APIClient, alice: Any, ann: Registration
) -> None:
    model = make_model(alice, furthest_base_agg=1)
    device.post(f"{API}models/{model.pk}/register_client/")
    make_aggregate(model, ann.client)
    send(device, model)

    said = owner.get(UPDATES, {"status": 4}).json()[0]

    assert "furthest_base_agg" in said["status_reason"]


def test_the_newest_update_in_an_open_round_replaces(
    owner: APIClient, device: APIClient, model: FederatedModel
) -> None:
    owner.patch(f"{API}models/{model.pk}/", {"allow_aggregation": False})
    first = send(device, model, weights(1.0)).json()
    second = send(device, model, weights(5.0)).json()

    assert second["id"] > first["id"]
    assert owner.get(f"{UPDATES}{first['id']}/").json()["status"] == 4
    owner.patch(f"{API}models/{model.pk}/", {"allow_aggregation": True})
    aggregate_now(model)
    assert device.get(f"{API}models/{model.pk}/get_latest_model/").json()["values"] == weights(5.0)


def test_the_same_bytes_again_are_the_same_update(device: APIClient, model: FederatedModel) -> None:
    assert send(device, model).json() == send(device, model).json()
    assert ModelUpdate.objects.count() == 1


def test_an_update_after_the_claim_goes_to_the_next_round(
    device: APIClient, model: FederatedModel, ann: Registration
) -> None:
    from fma_django.rounds.claiming import claim

    send(device, model)
    claim(model.rounds.get().pk)

    said = send(device, model).json()

    assert said["round"] == 2
    assert model.rounds.get(number=1).state == RoundState.AGGREGATING


def test_an_update_to_a_model_that_the_client_is_not_registered_with_is_refused(device: APIClient) -> None:
    answer = send(device, make_model())

    assert (answer.status_code, answer.json()["code"]) == (403, "not_registered")
    assert not ModelUpdate.objects.exists()
