"""The state that a strategy keeps with an aggregate: served like weights, to whoever reads these."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from fma_core.arrays.codecs.safetensors import decode
from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel, ModelAggregate
from tests.api.callers import API, SAFETENSORS, as_client
from tests.records import WEIGHTS, make_aggregate, make_client, make_model, weights

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(alice: Any) -> FederatedModel:
    return make_model(alice, initial_model=weights(1.0), optimiser={"name": "fedavgm", "momentum": 0.5})


@pytest.fixture
def aggregate(model: FederatedModel, ann: Registration) -> ModelAggregate:
    return make_aggregate(model, ann.client, value=3.0)


@pytest.fixture
def url(aggregate: ModelAggregate) -> str:
    return f"{API}model_aggregates/{aggregate.pk}/state/"


def body_of(answer: Any) -> bytes:
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def test_an_aggregate_says_where_its_state_is(device: APIClient, url: str) -> None:
    [said] = device.get(f"{API}model_aggregates/").json()

    assert said["state"].endswith(url)


def test_the_state_is_what_the_optimiser_keeps(device: APIClient, url: str) -> None:
    answer = device.get(url)

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, SAFETENSORS)
    kept = decode(body_of(answer))
    assert kept["optimiser.v/w"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert kept["num_steps"] == 1


def test_who_has_the_state_gets_it_no_second_time(
    device: APIClient, url: str, aggregate: ModelAggregate
) -> None:
    first = device.get(url)
    body_of(first)

    again = device.get(url, headers={"if-none-match": first.headers["ETag"]})

    assert first.headers["ETag"] == f'"{aggregate.state_sha256}"'
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]


def test_a_part_of_the_state(device: APIClient, url: str) -> None:
    whole = body_of(device.get(url))

    part = device.get(url, headers={"range": "bytes=8-15"})
    beyond = device.get(url, headers={"range": f"bytes={len(whole)}-"})

    assert (part.status_code, body_of(part)) == (206, whole[8:16])
    assert part.headers["Content-Range"] == f"bytes 8-15/{len(whole)}"
    assert beyond.status_code == 416
    assert beyond.json()["code"] == "range_not_satisfiable"


def test_an_aggregate_without_state_has_none(owner: APIClient, alice: Any) -> None:
    aggregate = make_aggregate(make_model(alice, initial_model=WEIGHTS))

    assert owner.get(f"{API}model_aggregates/").json()[0]["state"] is None
    answer = owner.get(f"{API}model_aggregates/{aggregate.pk}/state/")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_client_of_another_model_gets_no_state(url: str, alice: Any) -> None:
    assert as_client(make_client(make_model(alice))).get(url).status_code == 404
