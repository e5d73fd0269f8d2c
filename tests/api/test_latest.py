"""The newest weights or aggregate, asked for over and over: in one read, and as the view would have answered."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from fma_api.front.responses import StoredFile
from fma_api.v1.models import views as federated_models
from fma_django.clients.registration import Registration, revoke_client
from fma_django.models import FederatedModel
from tests.api.callers import API, SAFETENSORS, as_client, wait_of
from tests.records import WEIGHTS, make_aggregate, make_client, make_model

pytestmark = pytest.mark.django_db

HEADERS = ("Content-Type", "Content-Length", "ETag", "Cache-Control", "FMA-Aggregate", "Accept-Ranges")


@pytest.fixture
def model(alice: Any) -> FederatedModel:
    return make_model(alice, initial_model=WEIGHTS)


@pytest.fixture(params=["artifact", "aggregate"])
def url(request: pytest.FixtureRequest, model: FederatedModel, ann: Registration) -> str:
    if request.param == "aggregate":
        make_aggregate(model, ann.client, value=2.0)
    return f"{API}models/{model.pk}/get_latest_model/"


def said(answer: Any) -> tuple[Any, ...]:
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    headers = [answer.headers.get(name) for name in HEADERS]
    if answer.status_code == 204:
        headers[0] = None  # of an answer without a body DRF says what it would have been
    return answer.status_code, headers, body, wait_of(answer), isinstance(answer, StoredFile)


QUERIES = [
    "",
    "?after=0",
    "?after=0&wait=5",
    "?wait=5",
    "?after=999&wait=5",
    "?after=999",
    "?after=999&wait=1e9",
]


@pytest.mark.parametrize("has_it", [False, True])
def test_it_is_answered_at_once_as_the_view_would(
    device: APIClient, url: str, has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"accept": SAFETENSORS}
    if has_it:
        headers["if-none-match"] = said(device.get(url, headers=headers))[1][2]

    at_once = [said(device.get(url + query, headers=headers)) for query in QUERIES]
    monkeypatch.setattr(federated_models, "latest_at_once", lambda *_: None)
    by_the_view = [said(device.get(url + query, headers=headers)) for query in QUERIES]

    assert at_once == by_the_view


@pytest.mark.parametrize("has_aggregate", [False, True])
def test_a_newer_aggregate_is_answered_at_once_as_the_view_would(
    device: APIClient,
    model: FederatedModel,
    ann: Registration,
    has_aggregate: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if has_aggregate:
        make_aggregate(model, ann.client, value=2.0)
    url = f"{API}models/{model.pk}/get_latest_aggregate/"

    at_once = [said(device.get(url + query)) for query in QUERIES]
    monkeypatch.setattr(federated_models, "newer_at_once", lambda *_: None)
    by_the_view = [said(device.get(url + query)) for query in QUERIES]

    assert at_once == by_the_view


def test_to_wait_for_an_aggregate_takes_one_read(device: APIClient, model: FederatedModel) -> None:
    with CaptureQueriesContext(connection) as captured:
        device.get(f"{API}models/{model.pk}/get_latest_aggregate/?after=0&wait=5")

    assert len(captured) == 1


@pytest.mark.parametrize("query", ["", "?after=999&wait=5"])
def test_it_takes_one_read(device: APIClient, url: str, query: str) -> None:
    with CaptureQueriesContext(connection) as captured:
        said(device.get(url + query, headers={"accept": SAFETENSORS}))

    assert len(captured) == 1


@pytest.mark.parametrize("query", ["?after=x", "?after=-1", "?after=0&wait=-1", "?after=0&wait=inf"])
def test_what_cannot_be_asked_is_refused(device: APIClient, url: str, query: str) -> None:
    assert device.get(url + query, headers={"accept": SAFETENSORS}).status_code == 400


def test_who_is_not_known_or_not_registered_is_told_so(
    device: APIClient, url: str, ann: Registration, anonymous: APIClient
) -> None:
    stranger = as_client(make_client(make_model()))
    headers = {"accept": SAFETENSORS}

    assert stranger.get(url, headers=headers).json()["code"] == "not_registered"
    assert anonymous.get(url, headers={**headers, "client-uuid": "none"}).status_code == 401
    revoke_client(ann.client)
    assert device.get(url, headers=headers).status_code == 401


def test_a_model_without_weights_has_none(alice: Any) -> None:
    model = make_model(alice)

    answer = as_client(make_client(model)).get(
        f"{API}models/{model.pk}/get_latest_model/", headers={"accept": SAFETENSORS}
    )

    assert answer.status_code == 204
