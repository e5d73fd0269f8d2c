"""Authentication of callers, and trailing slashes: the FMA v1 contract."""

from base64 import b64encode
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from fma_django.accounts.tokens import issue_token
from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel
from tests.api.callers import API
from tests.records import PASSWORD, WEIGHTS, make_aggregate, make_user, weights

LOGIN = "/api-token-auth/"
pytestmark = [pytest.mark.django_db, pytest.mark.untraced]


def test_a_password_buys_a_token(anonymous: APIClient, alice: Any) -> None:
    answer = anonymous.post(LOGIN, {"username": "alice", "password": PASSWORD})

    assert answer.status_code == 200
    token = answer.json()["token"]
    assert answer.json() == {"token": token}
    assert APIClient(headers={"authorization": f"Token {token}"}).get(f"{API}me/").json()["id"] == alice.pk


def test_a_password_may_come_as_a_form(anonymous: APIClient, alice: Any) -> None:
    form = f"username=alice&password={PASSWORD.replace(' ', '+')}"

    answer = anonymous.generic("POST", LOGIN, form, "application/x-www-form-urlencoded")

    assert answer.status_code == 200


@pytest.mark.parametrize("password", ["wrong", "\x00"])
def test_a_wrong_password_is_400_under_non_field_errors(
    anonymous: APIClient, alice: Any, password: str
) -> None:
    answer = anonymous.post(LOGIN, {"username": "alice", "password": password})

    assert answer.status_code == 400
    assert answer.json().keys() & {"non_field_errors", "password"}


def test_guessing_passwords_is_throttled(anonymous: APIClient, alice: Any) -> None:
    statuses = {
        anonymous.post(LOGIN, {"username": "alice", "password": str(n)}).status_code for n in range(35)
    }

    assert statuses == {400, 429}


def basic(username: str, password: str) -> str:
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


def test_a_developer_calls_with_basic_token_or_session(alice: Any) -> None:
    session = APIClient()
    session.force_login(alice)
    callers = [
        APIClient(headers={"authorization": basic("alice", PASSWORD)}),
        APIClient(headers={"authorization": f"Token {issue_token(alice)}"}),
        session,
    ]

    assert [caller.get(f"{API}me/").json()["username"] for caller in callers] == ["alice"] * 3


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"client-uuid": "nonsense"},
        {"client-uuid": ""},
        {"client-uuid": "0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd"},
        {"authorization": "Token nonsense"},
        {"authorization": "Token"},
        {"authorization": basic("alice", "wrong")},
        {"authorization": "Basic !!!"},
        {"authorization": basic("al\x00ice", "wrong")},
    ],
)
def test_no_credentials_or_bad_ones_are_401(alice: Any, headers: dict[str, str]) -> None:
    answer = APIClient(headers=headers, raise_request_exception=False).get(f"{API}models/")

    assert answer.status_code == 401
    assert answer.json()["detail"]
    assert answer.headers["WWW-Authenticate"] == 'CLIENT-UUID, Basic realm="fma", Token'


def test_an_update_of_nobody_is_challenged_as_all_else(anonymous: APIClient) -> None:
    answer = anonymous.post(f"{API}model_updates/", {})

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'CLIENT-UUID, Basic realm="fma", Token'


def test_the_root_lists_the_collections(owner: APIClient, model: FederatedModel) -> None:
    listed = owner.get(API).json()

    of_fma = ("models", "model_updates", "model_aggregates", "model_artifacts", "client_aggregate_scores")
    for name in of_fma:
        assert listed[name] == f"http://testserver{API}{name}/"
    assert {name: owner.get(url).status_code for name, url in listed.items() if name != "roles"} == {
        name: 200 for name in listed if name != "roles"
    }
    assert owner.get(API.rstrip("/")).json() == listed


def test_a_user_who_was_switched_off_is_refused(owner: APIClient, alice: Any) -> None:
    alice.is_active = False
    alice.save()

    assert owner.get(f"{API}me/").status_code == 401


def test_me_of_a_user(owner: APIClient, alice: Any, model: FederatedModel) -> None:
    said = owner.get(f"{API}me/").json()

    assert (said["kind"], said["id"], said["username"], said["is_staff"]) == (
        "user",
        alice.pk,
        "alice",
        False,
    )
    assert said["models"] == [model.pk]
    assert "create_models" in said["rights"]


def test_me_of_a_client(device: APIClient, ann: Registration, model: FederatedModel) -> None:
    said = device.get(f"{API}me/").json()

    assert (said["kind"], said["id"], said["username"], said["is_staff"]) == (
        "client",
        str(ann.client.pk),
        None,
        False,
    )
    assert said["models"] == [model.pk]
    assert "send_updates" in said["rights"]


def test_a_get_without_its_trailing_slash_works(owner: APIClient, model: FederatedModel) -> None:
    for path in ("models", f"models/{model.pk}", f"models/{model.pk}/get_latest_model", "me"):
        answer = owner.get(f"{API}{path}")
        assert (answer.status_code, answer.json()) == (200, owner.get(f"{API}{path}/").json()), path


def test_a_post_without_its_trailing_slash_keeps_its_body(
    owner: APIClient, device: APIClient, alice: Any, model: FederatedModel, ann: Registration
) -> None:
    aggregate = make_aggregate(model, ann.client)
    calls = [
        (owner, "models", {"name": "m", "aggregator": "mean", "initial_model": WEIGHTS}, 201),
        (owner, f"models/{model.pk}/register_client", None, 200),
        (device, "model_updates", {"federated_model": model.pk, "data": weights()}, 201),
        (owner, f"model_aggregates/{aggregate.pk}/publish_aggregate", {"version": "2"}, 201),
        (device, "client_aggregate_scores", {"aggregate": aggregate.pk, "validation_results": {}}, 201),
    ]
    for caller, path, body, status in calls:
        assert caller.post(f"{API}{path}", body).status_code == status, path
    assert owner.post("/api-token-auth", {"username": "alice", "password": PASSWORD}).status_code == 200


def test_a_forgotten_slash_leaves_queries_and_links_whole(owner: APIClient, alice: Any) -> None:
    from tests.records import make_model

    for _ in range(2):
        make_model(alice)

    answer = owner.get(f"{API}models?page_size=1")

    assert len(answer.json()) == 1
    assert "/api/v1/models/?page=2&page_size=1" in answer.headers["Link"]
    assert make_user()


def test_wrong_passwords_are_limited_and_right_ones_are_not(alice: Any, settings: Settings) -> None:
    settings.FMA_LOGIN_RATE = (3, 60)

    def knock(password: str) -> int:
        basic = b64encode(f"{alice.username}:{password}".encode()).decode()
        return APIClient(headers={"authorization": f"Basic {basic}"}).get(f"{API}me/").status_code

    assert [knock(PASSWORD) for _ in range(5)] == [200] * 5
    assert [knock("guess") for _ in range(5)] == [401, 401, 401, 429, 429]
    assert knock(PASSWORD) == 429
