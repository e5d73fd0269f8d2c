"""Credentials of clients: replaced without a gap, and the former ones refused."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from fma_core.arrays.codecs.safetensors import encode
from fma_django.clients.credentials import give_next_credential
from fma_django.clients.registration import Registration, revoke_client
from fma_django.errors import UnknownClient
from fma_django.models import Client, FederatedModel
from tests.api.callers import API, SAFETENSORS
from tests.records import WEIGHTS, arrays, make_client, make_model, weights

pytestmark = pytest.mark.django_db

CREDENTIAL = f"{API}clients/me/credential/"
KEY = "0123456789abcdef"


def with_credential(credential: str | UUID) -> APIClient:
    return APIClient(raise_request_exception=False, headers={"client-uuid": str(credential)})


def rotated(api: APIClient, key: str = KEY) -> str:
    answer = api.post(CREDENTIAL, headers={"idempotency-key": key})
    assert answer.status_code == 201, answer.content
    assert answer["Cache-Control"] == "no-store"
    uuid: str = answer.json()["uuid"]
    return uuid


def is_let_in(credential: str | UUID) -> bool:
    return with_credential(credential).get(f"{API}me/").status_code == 200


def ask_for_me(api: APIClient, model: FederatedModel) -> int:
    return api.get(f"{API}me/").status_code


def ask_for_the_model(api: APIClient, model: FederatedModel) -> int:
    return api.get(f"{API}models/{model.pk}/get_latest_model/", headers={"accept": SAFETENSORS}).status_code


def ask_for_a_newer_one(api: APIClient, model: FederatedModel) -> int:
    return api.get(f"{API}models/{model.pk}/get_latest_aggregate/?after=0").status_code


def send_safetensors(api: APIClient, model: FederatedModel) -> int:
    url = f"{API}model_updates/?federated_model={model.pk}&base_aggregate=0"
    return api.generic("POST", url, encode(arrays()), SAFETENSORS).status_code


def send_json(api: APIClient, model: FederatedModel) -> int:
    body = {"federated_model": model.pk, "data": weights(2.0), "base_aggregate": 0}
    return api.post(f"{API}model_updates/", body).status_code


def register_again(api: APIClient, model: FederatedModel) -> int:
    return api.post(f"{API}models/{model.pk}/register_client/").status_code


def join(api: APIClient, model: FederatedModel) -> int:
    return api.post(f"{API}models/{model.pk}/join/").status_code


USES = (
    ask_for_me,
    ask_for_the_model,
    ask_for_a_newer_one,
    send_safetensors,
    send_json,
    register_again,
    join,
)
REFUSED = {register_again: 403}


@pytest.fixture
def model(db: None) -> FederatedModel:
    return make_model(initial_model=WEIGHTS, allow_aggregation=False)


@pytest.fixture
def ann(model: FederatedModel) -> Registration:
    return make_client(model)


@pytest.mark.parametrize("use", USES)
def test_the_former_works_until_the_next_is_used(model: FederatedModel, ann: Registration, use: Any) -> None:
    former = with_credential(ann.credential)
    following = with_credential(rotated(former))
    assert use(former, model) in (200, 201, 204)
    assert use(former, model) in (200, 201, 204)

    assert use(following, model) in (200, 201, 204)

    refused = REFUSED.get(use, 401)
    assert use(former, model) == refused
    assert use(following, model) in (200, 201, 204)
    assert Client.objects.get().next_credential_hash is None


@pytest.mark.parametrize("use", USES)
def test_the_former_works_for_a_day_at_most(model: FederatedModel, ann: Registration, use: Any) -> None:
    former = with_credential(ann.credential)
    following = with_credential(rotated(former))
    superseded_on = Client.objects.get().superseded_on
    assert superseded_on is not None
    assert abs(superseded_on - timezone.now() - timedelta(hours=24)) < timedelta(minutes=1)

    Client.objects.update(superseded_on=timezone.now())

    assert use(former, model) == REFUSED.get(use, 401)
    assert use(following, model) in (200, 201, 204)


def test_the_same_key_answers_the_same(ann: Registration) -> None:
    former = with_credential(ann.credential)

    first, again = rotated(former), rotated(former)

    assert first == again
    assert is_let_in(first)


def test_another_key_takes_the_place_of_a_credential_that_was_not_used(ann: Registration) -> None:
    former = with_credential(ann.credential)

    first, second = rotated(former), rotated(former, "fedcba9876543210")

    assert first != second
    assert not is_let_in(first)
    assert is_let_in(ann.credential)
    assert is_let_in(second)
    assert not is_let_in(ann.credential)


def test_a_key_that_is_used_again_brings_back_no_old_credential(ann: Registration) -> None:
    first = rotated(with_credential(ann.credential))
    second = rotated(with_credential(first), "fedcba9876543210")

    third = rotated(with_credential(second))

    assert len({str(ann.credential), first, second, third}) == 4
    assert is_let_in(third)
    assert [is_let_in(old) for old in (ann.credential, first, second)] == [False] * 3


def test_revoking_a_client_ends_both(ann: Registration) -> None:
    following = rotated(with_credential(ann.credential))

    revoke_client(Client.objects.get())

    assert not is_let_in(ann.credential)
    assert not is_let_in(following)
    with pytest.raises(UnknownClient):
        give_next_credential(ann.client)


@pytest.mark.parametrize("key", [None, "short", "k" * 15, "k" * 256, "k\x01" * 8])
def test_a_key_is_needed_and_long_enough(ann: Registration, key: str | None) -> None:
    headers = {} if key is None else {"idempotency-key": key}

    refused = with_credential(ann.credential).post(CREDENTIAL, headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_header")
    assert Client.objects.get().next_credential_hash is None


def test_the_database_has_no_credential(ann: Registration) -> None:
    following = rotated(with_credential(ann.credential))

    assert following not in str(Client.objects.values())
    assert Client.objects.get().next_credential_hash not in (None, following)


def test_a_known_credential_is_looked_up_once(model: FederatedModel, ann: Registration) -> None:
    """Also while there is a next one, and on the fast path."""
    former = with_credential(ann.credential)
    rotated(former)
    ask_for_the_model(former, model)

    with CaptureQueriesContext(connection) as captured:
        assert ask_for_the_model(former, model) == 200

    assert len(captured) == 1
