"""Clients as the owners of models see them, and what staff may change of them."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from fma_django.clients.registration import Registration, register_client
from fma_django.clients.reports import receive_error, receive_telemetry
from fma_django.models import (
    Client,
    ClientTelemetry,
    FederatedModel,
    Organisation,
    Participation,
)
from tests.api.callers import API, as_user
from tests.records import make_client, make_model, make_user, send_update

CLIENTS = f"{API}clients/"


@pytest.fixture
def staff(db: None) -> APIClient:
    return as_user(make_user(staff=True))


def url(registration: Registration, rest: str = "") -> str:
    return f"{CLIENTS}{registration.client.pk}/{rest}"


def ids(answer: Any) -> list[Any]:
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()]


def test_developer_sees_the_clients_of_own_models_once_each(
    owner: APIClient, ann: Registration, model: FederatedModel
) -> None:
    second = make_model(model.developer)
    others = make_model()
    for more in (second, others):
        register_client(more, credential=str(ann.credential))
    make_client(others)

    (row,) = owner.get(CLIENTS).json()

    assert row["id"] == str(ann.client.pk)
    assert row["models"] == [model.pk, second.pk]
    assert row["telemetry"] is None
    assert "credential" not in str(row)


def test_client_comes_with_its_newest_report(owner: APIClient, ann: Registration) -> None:
    receive_telemetry(ann.client, {"battery": 0.25})
    receive_telemetry(ann.client, {"battery": 0.5, "system": "Linux"})

    row = owner.get(url(ann)).json()

    assert row["telemetry"]["resources"]["battery"] == 0.5
    assert row["telemetry"]["system"] == {"name": "Linux", "version": ""}
    assert row["last_seen_on"] == row["telemetry"]["created_on"]


def test_clients_are_found_by_what_is_known_of_them(
    staff: APIClient, ann: Registration, model: FederatedModel
) -> None:
    ben = make_client(make_model())
    organisation = Organisation.objects.create(name="North")
    said = {"name": "ann", "tags": ["gpu", "site:1"], "organisation": "North"}
    assert staff.patch(url(ann), said).status_code == 200
    Client.objects.filter(pk=ben.client.pk).update(last_seen_on=timezone.now() - timedelta(days=3))
    Client.objects.filter(pk=ann.client.pk).update(last_seen_on=timezone.now())
    yesterday = (timezone.now() - timedelta(days=1)).isoformat()

    for query, expected in (
        ({"federated_model": model.pk}, [ann]),
        ({"tag": "gpu"}, [ann]),
        ({"tag": "unknown"}, []),
        ({"organisation": organisation.name}, [ann]),
        ({"seen_since": yesterday}, [ann]),
        ({"seen_since": "0373-03-19T21:37:43.99+23:18"}, [ben, ann]),
        ({"seen_before": yesterday}, [ben]),
        ({"is_active": False}, []),
        ({"ordering": "last_seen_on"}, [ben, ann]),
    ):
        assert ids(staff.get(CLIENTS, query)) == [str(one.client.pk) for one in expected], query


@pytest.mark.parametrize(
    "query",
    [{"seen_since": "yesterday"}, {"seen_before": "0001-01-01T00:00+23:59"}, {"federated_model": "x"}],
    ids=str,
)
def test_filters_that_cannot_be_are_refused(owner: APIClient, query: dict[str, str]) -> None:
    assert owner.get(CLIENTS, query).status_code == 400


def test_staff_change_what_is_known_of_a_client(staff: APIClient, ann: Registration) -> None:
    Organisation.objects.create(name="North")
    said = {"name": "ann", "tags": ["site:1", "gpu", "gpu"], "organisation": "North"}

    row = staff.patch(url(ann), said).json()

    assert (row["name"], row["tags"], row["organisation"]) == ("ann", ["gpu", "site:1"], "North")
    row = staff.patch(url(ann), {"tags": [], "organisation": None}).json()
    assert (row["name"], row["tags"], row["organisation"]) == ("ann", [], None)


def test_revoked_client_stays_revoked(staff: APIClient, device: APIClient, ann: Registration) -> None:
    assert staff.patch(url(ann), {"is_active": True}).json()["is_active"] is True
    assert staff.patch(url(ann), {"is_active": False}).json()["is_active"] is False

    assert device.get(f"{API}me/").status_code == 401
    answer = staff.patch(url(ann), {"is_active": True, "name": "back"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_value")
    assert Client.objects.get(pk=ann.client.pk).name == ""


@pytest.mark.parametrize(
    "said",
    [
        {"organisation": "nobody's"},
        {"tags": ["two words"]},
        {"tags": ["x" * 65]},
        {"tags": [f"t{number}" for number in range(65)]},
        {"tags": "gpu"},
        {"name": "x" * 256},
        {"name": "\x00"},
        {"colour": "red"},
        {"id": "1"},
    ],
    ids=lambda said: ",".join(said),
)
def test_changes_that_cannot_be_are_refused(staff: APIClient, ann: Registration, said: Any) -> None:
    assert staff.patch(url(ann), said).status_code == 400


def test_reports_of_a_client_are_found_by_time(owner: APIClient, ann: Registration) -> None:
    old = receive_telemetry(ann.client, {"battery": 0.25})
    ClientTelemetry.objects.update(created_on=timezone.now() - timedelta(days=2))
    new = receive_telemetry(ann.client, {"battery": 0.5})
    receive_telemetry(make_client().client, {})
    yesterday = (timezone.now() - timedelta(days=1)).isoformat()

    assert ids(owner.get(url(ann, "telemetry/"))) == [new.pk, old.pk]
    assert ids(owner.get(url(ann, "telemetry/"), {"since": yesterday})) == [new.pk]
    assert ids(owner.get(url(ann, "telemetry/"), {"until": yesterday})) == [old.pk]


def test_errors_in_models_of_others_are_not_shown(
    owner: APIClient, ann: Registration, model: FederatedModel
) -> None:
    others = make_model()
    register_client(others, credential=str(ann.credential))
    own = receive_error(ann.client, "x", federated_model=model, round_number=2)
    general = receive_error(ann.client, "y")
    receive_error(ann.client, "z", federated_model=others)

    assert ids(owner.get(url(ann, "errors/"))) == [general.pk, own.pk]
    assert ids(owner.get(url(ann, "errors/"), {"code": "x"})) == [own.pk]
    assert ids(owner.get(f"{API}models/{model.pk}/client_errors/")) == [own.pk]
    assert ids(owner.get(f"{API}models/{model.pk}/client_errors/", {"tag": "gpu"})) == []


def test_participation_of_a_client_by_model(
    owner: APIClient, ann: Registration, model: FederatedModel
) -> None:
    update = send_update(model, ann.client)
    register_client(make_model(model.developer), credential=str(ann.credential))

    (row,) = owner.get(url(ann, "participation/")).json()

    assert row["federated_model"] == model.pk
    assert (row["asked"], row["answered"], row["reliability"]) == (1, 1, 1.0)
    assert row["sent_bytes"] == update.size_bytes
    assert row["seconds"]["count"] == 1
    assert owner.get(url(ann, "participation/"), {"federated_model": 10**6}).json() == []


def test_participation_of_all_clients_of_a_model(
    owner: APIClient, staff: APIClient, ann: Registration, model: FederatedModel
) -> None:
    ben = make_client(model)
    collecting = model.rounds.get(state="collecting")
    Participation.objects.create(round=collecting, client=ben.client, is_chosen=True)
    send_update(model, ann.client)
    staff.patch(url(ben), {"tags": ["gpu"]})
    path = f"{API}models/{model.pk}/participation/"

    rows = {row["client"]: row for row in owner.get(path).json()}

    assert rows[str(ann.client.pk)]["answered"] == 1
    assert (rows[str(ben.client.pk)]["pending"], rows[str(ben.client.pk)]["reliability"]) == (1, None)
    assert rows[str(ben.client.pk)]["seconds"] is None
    assert [row["client"] for row in owner.get(path, {"tag": "gpu"}).json()] == [str(ben.client.pk)]
    assert owner.get(path, {"organisation": "nobody's"}).json() == []
    assert owner.get(path, {"until": "2020-01-01T00:00:00Z"}).json() == []
    assert owner.get(path, {"since": "then"}).status_code == 400


def test_lists_of_clients_take_a_constant_number_of_queries(owner: APIClient, model: FederatedModel) -> None:
    def grow(number: int) -> None:
        for _ in range(number):
            client = make_client(model).client
            receive_telemetry(client, {})
            receive_error(client, "x", federated_model=model)
            send_update(model, client)

    def cost() -> list[int]:
        found = []
        for path in ("clients/", f"models/{model.pk}/participation/", f"models/{model.pk}/client_errors/"):
            with CaptureQueriesContext(connection) as captured:
                assert owner.get(f"{API}{path}").status_code == 200
            found.append(len(captured))
        return found

    grow(2)
    owner.get(f"{API}me/")  # the use of the token is noted once a minute
    before = cost()
    grow(8)

    assert cost() == before
    assert max(before) <= 6
