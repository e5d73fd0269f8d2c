"""`model_aggregates/`, `model_artifacts/` and `client_aggregate_scores/`: every line of the FMA v1 contract."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from fma_django.clients.registration import Registration
from fma_django.models import ClientAggregateScore, FederatedModel, ModelAggregate, ModelArtifact
from tests.api.callers import API, as_client
from tests.records import WEIGHTS, make_aggregate, make_client, make_model, weights

AGGREGATES = f"{API}model_aggregates/"
SCORES = f"{API}client_aggregate_scores/"
pytestmark = pytest.mark.django_db


@pytest.fixture
def aggregate(model: FederatedModel, ann: Registration) -> ModelAggregate:
    return make_aggregate(model, ann.client, value=2.0)


def publish(caller: APIClient, aggregate: ModelAggregate, said: Any) -> Any:
    return caller.post(f"{AGGREGATES}{aggregate.pk}/publish_aggregate/", said)


def report(caller: APIClient, aggregate: ModelAggregate, **said: Any) -> Any:
    return caller.post(SCORES, {"aggregate": aggregate.pk, "validation_results": {"f1": 0.9}, **said})


def test_one_aggregate_holds_its_weights(device: APIClient, aggregate: ModelAggregate) -> None:
    said = device.get(f"{AGGREGATES}{aggregate.pk}/").json()

    assert said["result"] == weights(2.0)
    assert (said["id"], said["parent"], said["validation_score"]) == (aggregate.pk, None, None)
    assert {"federated_model", "created_on"} <= said.keys()


def test_a_list_of_aggregates_holds_urls(owner: APIClient, aggregate: ModelAggregate) -> None:
    (said,) = owner.get(AGGREGATES).json()

    assert said["result"].startswith("http://testserver/api/v1/")
    assert owner.get(said["result"]).json() == weights(2.0)


def test_aggregates_are_a_tree(owner: APIClient, aggregate: ModelAggregate, ann: Registration) -> None:
    second = make_aggregate(aggregate.federated_model, ann.client, value=3.0)

    assert owner.get(f"{AGGREGATES}{second.pk}/").json()["parent"] == aggregate.pk


def test_the_owner_scores_an_aggregate(owner: APIClient, aggregate: ModelAggregate) -> None:
    answer = owner.patch(f"{AGGREGATES}{aggregate.pk}/", {"validation_score": 0.75})

    assert (answer.status_code, answer.json()["validation_score"]) == (200, 0.75)
    assert owner.patch(f"{AGGREGATES}{aggregate.pk}/", {"validation_score": None}).status_code == 200


@pytest.mark.parametrize("score", ["nan", "inf", "-Infinity", "good", [1]])
def test_a_score_is_a_finite_number(owner: APIClient, aggregate: ModelAggregate, score: Any) -> None:
    answer = owner.patch(f"{AGGREGATES}{aggregate.pk}/", {"validation_score": score})

    assert answer.status_code == 400
    assert answer.json()["validation_score"]


def test_only_the_score_of_an_aggregate_can_change(owner: APIClient, aggregate: ModelAggregate) -> None:
    before = owner.get(f"{AGGREGATES}{aggregate.pk}/").json()

    assert owner.patch(f"{AGGREGATES}{aggregate.pk}/", {"parent": aggregate.pk, "id": 9}).status_code == 200
    assert owner.get(f"{AGGREGATES}{aggregate.pk}/").json() == before
    assert owner.put(f"{AGGREGATES}{aggregate.pk}/", {}).status_code == 405
    assert owner.delete(f"{AGGREGATES}{aggregate.pk}/").status_code == 405


def test_publishing_makes_the_current_artifact(
    owner: APIClient, device: APIClient, aggregate: ModelAggregate
) -> None:
    answer = publish(owner, aggregate, {"version": "1.0.1"})

    assert answer.status_code == 201
    artifact = answer.json()
    assert (artifact["version"], artifact["aggregate"]) == ("1.0.1", aggregate.pk)
    model_url = f"{API}models/{aggregate.federated_model_id}/"
    assert owner.get(model_url).json()["current_artifact"] == artifact["id"]
    assert device.get(f"{model_url}get_current_artifact/").json() == artifact
    assert device.get(artifact["values"]).json() == weights(2.0)
    assert owner.get(f"{API}model_artifacts/{artifact['id']}/").json() == artifact


@pytest.mark.parametrize("said", [{}, {"version": ""}, {"version": None}, {"version": "1" * 256}, []])
def test_publishing_needs_a_version(owner: APIClient, aggregate: ModelAggregate, said: Any) -> None:
    assert publish(owner, aggregate, said).status_code == 400
    assert not ModelArtifact.objects.exists()


def test_a_version_is_used_once(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, initial_model=WEIGHTS)
    aggregate = make_aggregate(model)

    answer = publish(owner, aggregate, {"version": "1.0.0"})

    assert (answer.status_code, answer.json()["code"]) == (400, "version_taken")
    assert "1.0.0" in answer.json()["version"][0]
    model.refresh_from_db()
    assert model.artifacts.get() == model.current_artifact


def test_another_model_may_use_the_same_version(owner: APIClient, alice: Any, aggregate: Any) -> None:
    other = make_aggregate(make_model(alice))

    assert publish(owner, aggregate, {"version": "1"}).status_code == 201
    assert publish(owner, other, {"version": "1"}).status_code == 201


def test_a_score_is_kept_and_reads_back_the_uuid_that_was_sent(
    device: APIClient, ann: Registration, aggregate: ModelAggregate
) -> None:
    uuid = str(ann.credential)

    answer = report(device, aggregate, client=uuid, federated_model=aggregate.federated_model_id)

    assert answer.status_code == 201
    said = answer.json()
    assert (said["aggregate"], said["client"], said["validation_results"]) == (
        aggregate.pk,
        uuid,
        {"f1": 0.9},
    )
    (listed,) = device.get(SCORES).json()
    assert listed["client"] == str(ann.client.pk)
    assert device.get(f"{SCORES}{listed['id']}/").json() == listed


def test_a_client_may_quote_its_public_id_or_nothing(model: FederatedModel, aggregate: Any) -> None:
    quoting, silent = make_client(model), make_client(model)

    first = report(as_client(quoting), aggregate, client=str(quoting.client.pk)).json()
    second = report(as_client(silent), aggregate).json()

    assert first["client"] == str(quoting.client.pk)
    assert second["client"] == str(silent.client.pk)


def test_a_client_cannot_report_for_another(device: APIClient, aggregate: ModelAggregate) -> None:
    other = make_client(aggregate.federated_model)

    answer = report(device, aggregate, client=str(other.client.pk))

    assert (answer.status_code, answer.json()["code"]) == (403, "client_mismatch")
    assert not ClientAggregateScore.objects.exists()


def test_scores_come_once_per_client_and_aggregate(device: APIClient, aggregate: ModelAggregate) -> None:
    assert report(device, aggregate).status_code == 201

    again = report(device, aggregate, validation_results={"f1": 1.0})

    assert (again.status_code, again.json()["code"]) == (400, "score_taken")
    assert ClientAggregateScore.objects.get().validation_results == {"f1": 0.9}
    assert report(as_client(make_client(aggregate.federated_model)), aggregate).status_code == 201


def test_client_agg_results_schema_is_enforced(ann: Registration) -> None:
    model = make_model(client_agg_results_schema={"type": "object", "required": ["f1"]})
    client = make_client(model)
    aggregate = make_aggregate(model, client.client)

    refused = report(as_client(client), aggregate, validation_results={"loss": 1})

    assert refused.status_code == 400
    assert "f1" in refused.json()["validation_results"][0]
    assert report(as_client(client), aggregate).status_code == 201


@pytest.mark.parametrize("results", [None, {"x": "y" * 70_000}, {"x": "\x00"}, {"\x00": 1}])
def test_results_must_be_json_that_can_be_kept(
    device: APIClient, aggregate: ModelAggregate, results: Any
) -> None:
    answer = report(device, aggregate, validation_results=results)

    assert answer.status_code == 400
    assert answer.json()["validation_results"]


def test_a_score_for_an_unknown_aggregate_is_refused(device: APIClient, aggregate: ModelAggregate) -> None:
    answer = device.post(SCORES, {"aggregate": aggregate.pk + 1, "validation_results": {}})

    assert answer.status_code == 400
    assert answer.json()["aggregate"]


def test_a_stranger_cannot_score(aggregate: ModelAggregate) -> None:
    answer = report(as_client(make_client(make_model())), aggregate)

    assert (answer.status_code, answer.json()["code"]) == (403, "not_registered")


def test_scores_are_seen_by_their_client_and_the_owner(
    owner: APIClient, device: APIClient, aggregate: ModelAggregate
) -> None:
    score = report(device, aggregate).json()
    other = as_client(make_client(aggregate.federated_model))

    assert [row["id"] for row in owner.get(SCORES).json()] == [score["id"]]
    assert other.get(SCORES).json() == []
    assert other.get(f"{SCORES}{score['id']}/").status_code == 404
