"""`models/`: every line of the FMA v1 contract about experiments."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel
from tests.api.callers import API, as_client, as_user
from tests.records import (
    WEIGHTS,
    aggregate_now,
    make_aggregate,
    make_client,
    make_model,
    make_user,
    send_update,
    weights,
)

MODELS = f"{API}models/"
pytestmark = pytest.mark.django_db


def test_a_model_needs_only_a_name_and_an_aggregator(owner: APIClient, alice: Any) -> None:
    answer = owner.post(MODELS, {"name": "digits", "aggregator": "avg_values_if_data"})

    assert answer.status_code == 201
    said = answer.json()
    assert (said["name"], said["aggregator"], said["developer"]) == ("digits", "avg_values_if_data", alice.pk)
    assert (said["allow_aggregation"], said["clients"], said["current_artifact"]) == (False, [], None)
    assert "initial_model" not in said


def test_a_model_takes_all_the_fields_of_fma(owner: APIClient, alice: Any) -> None:
    client = make_client(make_model(alice)).client
    asked = {
        "name": "digits",
        "aggregator": "average_layers",
        "developer": alice.pk,
        "allow_aggregation": True,
        "clients": [str(client.pk)],
        "requirement": "require_x_updates",
        "requirement_args": [3],
        "update_schema": {"type": "array"},
        "client_agg_results_schema": {"type": "object"},
        "furthest_base_agg": 2147483647,
    }

    answer = owner.post(MODELS, {**asked, "initial_model": [[1, 2, 3], [4]]})

    assert answer.status_code == 201
    assert asked.items() <= answer.json().items()


def test_initial_model_becomes_artifact_1_0_0(owner: APIClient) -> None:
    created = owner.post(MODELS, {"name": "m", "aggregator": "mean", "initial_model": WEIGHTS}).json()

    artifact = owner.get(f"{MODELS}{created['id']}/get_current_artifact/").json()
    assert created["current_artifact"] == artifact["id"]
    assert (artifact["version"], artifact["federated_model"]) == ("1.0.0", created["id"])
    assert owner.get(artifact["values"]).json() == WEIGHTS


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"aggregator": "meen"}, "aggregator"),
        ({"aggregator_params": {"beta": 1}}, "aggregator_params"),
        ({"requirement": "all_client"}, "requirement"),
        ({"requirement": "require_x_updates"}, "requirement_args"),
        ({"requirement": "require_x_updates", "requirement_args": [0]}, "requirement_args"),
        ({"requirement": "require_x_updates", "requirement_args": ["three"]}, "requirement_args"),
        ({"requirement": "all_clients", "requirement_args": [1]}, "requirement_args"),
        ({"update_schema": {"type": "sequence"}}, "update_schema"),
        ({"client_agg_results_schema": {"required": 3}}, "client_agg_results_schema"),
        ({"furthest_base_agg": 0}, "furthest_base_agg"),
        ({"furthest_base_agg": 2147483648}, "furthest_base_agg"),
        ({"clients": ["0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd"]}, "clients"),
        ({"clients": ["me"]}, "clients"),
        ({"developer": 10**6}, "developer"),
        ({"initial_model": [["a"]]}, "initial_model"),
        ({"initial_model": {"w": [1.0, None]}}, "initial_model"),
        ({"spec": {"w": {"shape": [2], "dtype": "float31"}}}, "spec"),
        ({"spec": {"w": {"shape": [3], "dtype": "float64"}}, "initial_model": {"w": [1]}}, "initial_model"),
    ],
)
def test_what_cannot_work_is_refused_under_its_field(owner: APIClient, wrong: Any, field: str) -> None:
    answer = owner.post(MODELS, {"name": "m", "aggregator": "mean", **wrong})

    assert answer.status_code in (400, 422), answer.content
    assert answer.json()[field]
    assert not FederatedModel.objects.exists()


def test_an_unknown_aggregator_is_answered_with_the_known_ones(owner: APIClient) -> None:
    said = owner.post(MODELS, {"name": "m", "aggregator": "meen"}).json()

    assert said["code"] == "unknown_part"
    assert all(name in said["aggregator"][0] for name in ("avg_values_if_data", "average_layers", "mean"))


def test_missing_fields_are_named(owner: APIClient) -> None:
    answer = owner.post(MODELS, {})

    assert answer.status_code == 400
    assert {"name", "aggregator"} <= answer.json().keys()


def test_only_staff_may_name_another_developer(owner: APIClient) -> None:
    bob = make_user("bob")
    asked = {"name": "m", "aggregator": "mean", "developer": bob.pk}

    refused = owner.post(MODELS, asked)
    taken = as_user(make_user(staff=True)).post(MODELS, asked)

    nobody = owner.post(MODELS, {**asked, "developer": 10**6})

    assert refused.status_code == 400
    assert refused.json()["developer"][0].replace(str(bob.pk), "N") == nobody.json()["developer"][0].replace(
        str(10**6), "N"
    )
    assert taken.status_code == 201
    assert taken.json()["developer"] == bob.pk


def test_a_developer_sees_own_models_and_staff_sees_all(owner: APIClient, model: FederatedModel) -> None:
    other = make_model(make_user("bob"))

    assert [row["id"] for row in owner.get(MODELS).json()] == [model.pk]
    staff = as_user(make_user(staff=True))
    assert [row["id"] for row in staff.get(MODELS).json()] == [other.pk, model.pk]
    assert owner.get(f"{MODELS}{other.pk}/").status_code == 404
    assert staff.get(f"{MODELS}{other.pk}/").status_code == 200


def test_models_filter_by_allow_aggregation(owner: APIClient, alice: Any, model: FederatedModel) -> None:
    paused = make_model(alice, allow_aggregation=False)

    assert [row["id"] for row in owner.get(MODELS, {"allow_aggregation": "true"}).json()] == [model.pk]
    assert [row["id"] for row in owner.get(MODELS, {"allow_aggregation": "false"}).json()] == [paused.pk]


def test_current_artifact_is_read_only(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, initial_model=WEIGHTS)

    answer = owner.patch(f"{MODELS}{model.pk}/", {"current_artifact": None})

    assert answer.status_code == 200
    assert answer.json()["current_artifact"] == model.current_artifact_id is not None


def test_put_takes_what_get_answered(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[2])
    make_client(model)
    before = owner.get(f"{MODELS}{model.pk}/").json()

    answer = owner.put(f"{MODELS}{model.pk}/", {**before, "name": "renamed"})

    assert answer.status_code == 200
    after = answer.json()
    assert after.pop("last_modified") > before.pop("last_modified")
    assert after == {**before, "name": "renamed"}


def test_put_needs_name_and_aggregator(owner: APIClient, model: FederatedModel) -> None:
    assert {"name", "aggregator"} <= owner.put(f"{MODELS}{model.pk}/", {}).json().keys()


@pytest.mark.parametrize("method", ["patch", "put"])
def test_a_change_of_a_model_takes_no_first_weights(
    owner: APIClient, model: FederatedModel, method: str
) -> None:
    answer = getattr(owner, method)(
        f"{MODELS}{model.pk}/", {"name": "new", "aggregator": "mean", "initial_model": {"w": [1.0]}}
    )

    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["initial_model"])
    model.refresh_from_db()
    assert model.name != "new"


def test_a_patch_that_cannot_work_changes_nothing(owner: APIClient, model: FederatedModel) -> None:
    answer = owner.patch(f"{MODELS}{model.pk}/", {"name": "new", "requirement": "nobody"})

    assert answer.status_code == 400
    assert answer.json()["requirement"]
    model.refresh_from_db()
    assert (model.name, model.requirement) == ("experiment", "")


def test_delete_takes_everything_along(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, initial_model=WEIGHTS)
    aggregate = make_aggregate(model)
    owner.post(f"{API}model_aggregates/{aggregate.pk}/publish_aggregate/", {"version": "2"})

    assert owner.delete(f"{MODELS}{model.pk}/").status_code == 204
    assert owner.get(f"{MODELS}{model.pk}/").status_code == 404
    assert owner.get(f"{API}model_aggregates/").json() == []
    assert owner.get(f"{API}model_artifacts/").json() == []


def test_the_spec_cannot_change_once_there_are_weights(
    owner: APIClient, model: FederatedModel, ann: Registration
) -> None:
    make_aggregate(model, ann.client)

    answer = owner.patch(f"{MODELS}{model.pk}/", {"spec": {"w": {"shape": [1], "dtype": "float32"}}})

    assert answer.status_code == 409
    assert answer.json()["code"] == "model_has_history"


def test_registering_answers_a_credential_that_works(anonymous: APIClient, model: FederatedModel) -> None:
    answer = anonymous.post(f"{MODELS}{model.pk}/register_client/")

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    device = APIClient(headers={"client-uuid": answer.json()["uuid"]})
    assert device.get(f"{MODELS}{model.pk}/get_latest_aggregate/").json() == {}
    assert device.get(f"{API}me/").json()["id"] == answer.json()["id"]


def test_a_known_client_registers_as_itself(ann: Registration, device: APIClient) -> None:
    second = make_model()

    answer = device.post(f"{MODELS}{second.pk}/register_client/")

    assert answer.status_code == 200
    assert answer.json() == {"uuid": str(ann.credential), "id": str(ann.client.pk), "public_key": None}
    assert device.get(f"{API}me/").json()["models"] == sorted(
        ann.client.federated_models.values_list("pk", flat=True)
    )


@pytest.mark.parametrize("credential", ["", "nonsense", "0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd"])
def test_registering_with_a_bad_uuid_is_403(model: FederatedModel, credential: str) -> None:
    answer = APIClient(headers={"client-uuid": credential}).post(f"{MODELS}{model.pk}/register_client/")

    assert answer.status_code == 403
    assert answer.json()["detail"]
    assert model.clients.count() == 0


def test_a_public_id_is_no_credential(model: FederatedModel, ann: Registration) -> None:
    posing = APIClient(headers={"client-uuid": str(ann.client.pk)})

    assert posing.get(f"{MODELS}{model.pk}/get_latest_aggregate/").status_code == 401
    assert posing.post(f"{MODELS}{model.pk}/register_client/").status_code == 403


def test_registering_with_an_unknown_model_is_404(anonymous: APIClient) -> None:
    assert anonymous.post(f"{MODELS}99/register_client/").status_code == 404


def test_registration_can_be_closed(anonymous: APIClient, model: FederatedModel, settings: Any) -> None:
    settings.FMA_REGISTRATION = "closed"

    answer = anonymous.post(f"{MODELS}{model.pk}/register_client/")

    assert (answer.status_code, answer.json()["code"]) == (403, "registration_closed")


def test_registration_can_ask_for_a_token(model: FederatedModel, settings: Any) -> None:
    settings.FMA_REGISTRATION, settings.FMA_ENROLMENT_TOKEN = "token", "s3same"
    url = f"{MODELS}{model.pk}/register_client/"

    refused = [APIClient().post(url), APIClient(headers={"fma-enrolment-token": "s3sam"}).post(url)]
    taken = APIClient(headers={"fma-enrolment-token": "s3same"}).post(url)

    assert [(it.status_code, it.json()["code"]) for it in refused] == [(403, "wrong_enrolment_token")] * 2
    assert taken.status_code == 200


def test_guesses_of_the_enrolment_token_are_limited(model: FederatedModel, settings: Any) -> None:
    settings.FMA_REGISTRATION, settings.FMA_ENROLMENT_TOKEN = "token", "s3same"
    settings.FMA_LOGIN_RATE = (5, 60)
    url = f"{MODELS}{model.pk}/register_client/"
    for _ in range(7):  # right ones cost nothing
        assert APIClient(headers={"fma-enrolment-token": "s3same"}).post(url).status_code == 200

    statuses = [APIClient(headers={"fma-enrolment-token": f"{n}"}).post(url).status_code for n in range(8)]

    assert statuses == [403] * 5 + [429] * 3
    assert APIClient(headers={"fma-enrolment-token": "s3same"}).post(url).status_code == 429


def test_nobody_else_sees_a_credential(model: FederatedModel, ann: Registration, owner: APIClient) -> None:
    aggregate = make_aggregate(model, ann.client)
    urls = [MODELS, f"{MODELS}{model.pk}/", f"{MODELS}{model.pk}/rounds/", f"{API}model_updates/"]

    seen = b"".join(owner.get(url).content for url in urls)

    assert str(ann.client.pk).encode() in seen
    assert str(ann.credential).encode() not in seen
    assert aggregate.pk


def test_without_weights_every_newest_is_an_empty_object(device: APIClient, model: FederatedModel) -> None:
    for call in ("get_latest_aggregate", "get_current_artifact", "get_latest_model"):
        answer = device.get(f"{MODELS}{model.pk}/{call}/")
        assert (answer.status_code, answer.json()) == (200, {}), call


def test_latest_model_is_the_artifact_then_the_newest_aggregate(device: APIClient, ann: Registration) -> None:
    model = make_model(initial_model=WEIGHTS)
    device.post(f"{MODELS}{model.pk}/register_client/")
    url = f"{MODELS}{model.pk}/get_latest_model/"
    assert device.get(url).json() == {"values": WEIGHTS, "aggregate": None}

    first = make_aggregate(model, ann.client, value=2.0)
    second = make_aggregate(model, ann.client, value=3.0)

    assert second.pk > first.pk
    assert device.get(url).json() == {"values": weights(3.0), "aggregate": second.pk}


def test_latest_aggregate_gives_its_weights_as_a_url(
    device: APIClient, model: FederatedModel, ann: Registration
) -> None:
    make_aggregate(model, ann.client, value=1.0)
    second = make_aggregate(model, ann.client, value=2.0)

    said = device.get(f"{MODELS}{model.pk}/get_latest_aggregate/").json()

    assert (said["id"], said["federated_model"]) == (second.pk, model.pk)
    assert device.get(said["result"]).json() == weights(2.0)


def test_current_artifact_has_the_fields_of_fma(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, initial_model=WEIGHTS)

    said = owner.get(f"{MODELS}{model.pk}/get_current_artifact/").json()

    assert {"id", "values", "version", "created_on", "federated_model"} <= said.keys()


def test_a_client_that_is_not_registered_is_refused(model: FederatedModel) -> None:
    stranger = as_client(make_client())

    for call in ("get_latest_aggregate", "get_current_artifact", "get_latest_model"):
        answer = stranger.get(f"{MODELS}{model.pk}/{call}/")
        assert (answer.status_code, answer.json()["code"]) == (403, "not_registered")


def test_rounds_tell_what_became_of_them(owner: APIClient, model: FederatedModel, ann: Registration) -> None:
    aggregate = make_aggregate(model, ann.client)

    newest, first = owner.get(f"{MODELS}{model.pk}/rounds/").json()

    assert (newest["number"], newest["state"], newest["parent"]) == (2, "collecting", aggregate.pk)
    assert (first["state"], first["aggregate"], first["num_updates"]) == ("published", aggregate.pk, 1)
    assert first["clients"] == [str(ann.client.pk)]
    assert all(seconds >= 0 for seconds in first["seconds"].values())
    assert owner.get(f"{MODELS}{model.pk}/rounds/1/").json() == first
    assert owner.get(f"{MODELS}{model.pk}/rounds/3/").status_code == 404


def test_clients_do_not_see_who_else_answered(
    device: APIClient, model: FederatedModel, ann: Registration
) -> None:
    send_update(model, ann.client)
    aggregate_now(model)

    assert [row["clients"] for row in device.get(f"{MODELS}{model.pk}/rounds/").json()] == [None, None]


def test_a_failed_round_says_why(owner: APIClient, model: FederatedModel, ann: Registration) -> None:
    from fma_django.rounds import claiming, publishing

    send_update(model, ann.client)
    lease = claiming.claim(model.rounds.get().pk)
    assert lease is not None
    publishing.fail(lease, code="non_finite_result", detail="array 'w' overflowed")

    said = owner.get(f"{MODELS}{model.pk}/rounds/1/").json()

    assert said["state"] == "failed"
    assert said["failure"] == {"code": "non_finite_result", "detail": "array 'w' overflowed"}
    update = owner.get(f"{API}model_updates/").json()[0]
    assert update["status"] == 3
    assert "overflowed" in update["status_reason"]


@pytest.mark.parametrize("sent", [{}, {"requirement_args": None}, {"requirement_args": []}])
def test_a_requirement_without_arguments_has_none(owner: APIClient, sent: dict[str, Any]) -> None:
    made = owner.post(MODELS, {"name": "m", "aggregator": "mean", "requirement": "all_clients", **sent})

    assert made.status_code == 201
    assert made.json()["requirement_args"] is None
    url = f"{MODELS}{made.json()['id']}/"
    assert owner.get(url).json()["requirement_args"] is None
    again = owner.put(url, {**made.json(), "requirement": "require_x_updates", "requirement_args": [2]})
    assert again.json()["requirement_args"] == [2]
    assert owner.patch(url, {"requirement": "", "requirement_args": None}).json()["requirement_args"] is None
