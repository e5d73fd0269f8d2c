"""Every error is a problem (RFC 9457) with a stable code, whoever raises it."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError
from rest_framework.test import APIClient

from fma_api import errors as api_errors
from fma_api.problems import status_of
from fma_core.errors import FMAError
from fma_django.models import FederatedModel
from fma_django.storage.errors import StorageUnavailable
from tests.api.callers import API, as_client
from tests.records import WEIGHTS, aggregate_now, make_client, make_model, send_update

pytestmark = pytest.mark.django_db
MEMBERS = {"type", "title", "status", "detail", "code"}


def require_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    said: dict[str, Any] = answer.json()
    assert said.keys() >= MEMBERS
    assert (answer.status_code, said["status"], said["code"]) == (status, status, code)
    assert said["type"] == f"urn:fma:problem:{code}"
    assert isinstance(said["detail"], str)
    return said


def test_debug_is_off() -> None:
    assert django_settings.DEBUG is False


def test_a_field_stands_beside_the_members_and_under_errors(owner: APIClient) -> None:
    said = require_problem(owner.post(f"{API}models/", {"aggregator": "mean"}), 400, "invalid")

    assert said["name"] == said["errors"]["name"] == ["This field is required."]
    assert said["detail"] == "name: This field is required."


def test_401(anonymous: APIClient) -> None:
    require_problem(anonymous.get(f"{API}models/"), 401, "not_authenticated")
    require_problem(APIClient(headers={"client-uuid": "x"}).get(f"{API}models/"), 401, "unknown_client")


def test_403(device: APIClient) -> None:
    require_problem(device.get(f"{API}models/"), 403, "permission_denied")


@pytest.mark.parametrize("path", ["models/99/", "nothing/", "models/x/", "models/-1/", f"models/{'9' * 30}/"])
def test_404(owner: APIClient, path: str) -> None:
    require_problem(owner.get(f"{API}{path}"), 404, "not_found")


def test_404_for_a_browser_outside_the_api(anonymous: APIClient) -> None:
    answer = anonymous.get("/nothing", headers={"accept": "text/html"})

    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/html; charset=utf-8")


def test_405(owner: APIClient) -> None:
    answer = owner.delete(f"{API}models/")

    require_problem(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]


def test_406(owner: APIClient, model: FederatedModel) -> None:
    answer = owner.get(f"{API}models/", headers={"accept": "application/xml"})

    require_problem(answer, 406, "not_acceptable")


def test_415(owner: APIClient) -> None:
    answer = owner.generic("POST", f"{API}models/", b"<a/>", "application/xml")

    require_problem(answer, 415, "unsupported_media_type")


def test_429(anonymous: APIClient) -> None:
    said = {"username": "a", "password": "b"}
    answer = [anonymous.post("/api-token-auth/", said) for _ in range(31)][-1]

    require_problem(answer, 429, "throttled")
    assert int(answer.headers["Retry-After"]) > 0


def test_500_says_nothing_of_its_inside(owner: APIClient, monkeypatch: Any) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("fma_api.v1.models.views.visible_to", fail)

    answer = owner.get(f"{API}models/")

    require_problem(answer, 500, "internal_error")
    assert b"secret" not in answer.content


def test_a_host_that_is_not_ours_is_400(anonymous: APIClient) -> None:
    answer = anonymous.get(f"{API}models/", HTTP_HOST="evil.example")

    said = require_problem(answer, 400, "unknown_host")
    assert "evil.example" in said["detail"]
    assert "FMA_ALLOWED_HOSTS" in said["detail"]


def test_a_host_with_an_underscore_is_no_host_name(anonymous: APIClient, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]

    answer = anonymous.get(f"{API}models/", HTTP_HOST="fma_web:8000")

    problem = require_problem(answer, 400, "unknown_host")
    assert problem["detail"].startswith("The host 'fma_web:8000' is not a host name (RFC 1123)")


def test_a_page_shows_a_host_as_text(anonymous: APIClient) -> None:
    page = anonymous.get("/", HTTP_HOST="<b>evil", HTTP_ACCEPT="text/html")

    assert page.status_code == 400
    assert b"<b>" not in page.content


def test_an_error_about_bytes_is_json(device: APIClient) -> None:
    answer = device.get(
        f"{API}models/99/get_latest_model/", headers={"accept": "application/vnd.safetensors"}
    )

    require_problem(answer, 404, "not_found")


def test_a_store_that_is_down_is_503_and_tells_no_address(
    device: APIClient, model: FederatedModel, storage: Path
) -> None:
    storage.write_text("not a folder")

    answer = device.post(f"{API}model_updates/", {"federated_model": model.pk, "data": [1.0]})

    require_problem(answer, 503, "storage_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert str(storage).encode() not in answer.content
    assert not model.model_updates.exists()


def test_weights_that_got_lost_are_500(owner: APIClient, alice: Any, storage: Path) -> None:
    model = make_model(alice, initial_model=WEIGHTS)
    for blob in (storage / "blobs").rglob("*"):
        if blob.is_file():
            blob.unlink()

    for accept in ("application/json", "application/vnd.safetensors"):
        answer = owner.get(f"{API}models/{model.pk}/get_latest_model/", headers={"accept": accept})
        require_problem(answer, 500, "blob_missing")


@pytest.mark.parametrize("accept", ["application/json", "application/vnd.safetensors"])
@pytest.mark.parametrize("method", ["get", "head"])
@pytest.mark.parametrize("damage", ["empty", "cut", "longer"])
def test_weights_that_were_cut_are_500_on_every_route(
    owner: APIClient, alice: Any, storage: Path, damage: str, method: str, accept: str
) -> None:
    model = make_model(alice, initial_model=WEIGHTS, optimiser={"name": "fedadam", "learning_rate": 0.1})
    ann = make_client(model)
    update = send_update(model, ann.client)
    aggregate = aggregate_now(model)
    artifact = model.artifacts.get()
    for blob in (storage / "blobs").rglob("*"):
        if blob.is_file():
            data = blob.read_bytes()
            blob.write_bytes({"empty": b"", "cut": data[:-1], "longer": data + b"!"}[damage])
    paths = [
        f"models/{model.pk}/get_latest_model/",
        f"model_aggregates/{aggregate.pk}/weights/",
        f"model_artifacts/{artifact.pk}/weights/",
        f"model_updates/{update.pk}/weights/",
    ]
    if accept == "application/json":
        paths.append(f"model_aggregates/{aggregate.pk}/")
    else:
        paths.append(f"model_aggregates/{aggregate.pk}/state/")

    asked = [(owner, path) for path in paths] + [(as_client(ann), paths[0]), (as_client(ann), paths[1])]
    for caller, path in asked:
        answer = getattr(caller, method)(f"{API}{path}", headers={"accept": accept})
        assert answer.status_code == 500, path
        if method == "get":
            require_problem(answer, 500, "blob_corrupt")


def test_weights_with_other_bytes_are_no_fault_of_the_caller(
    owner: APIClient, alice: Any, storage: Path
) -> None:
    model = make_model(alice, initial_model=WEIGHTS)
    for blob in (storage / "blobs").rglob("*"):
        if blob.is_file():
            blob.write_bytes(b"\0" * blob.stat().st_size)

    answer = owner.get(f"{API}models/{model.pk}/get_latest_model/", headers={"accept": "application/json"})

    require_problem(answer, 500, "blob_corrupt")


def every(kind: type[FMAError]) -> list[type[FMAError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in every(child))]


def test_every_error_of_the_tree_has_a_status_and_a_code_of_its_own() -> None:
    ours = ("fma_core.", "fma_django.", "fma_api.")
    kinds = [kind for kind in every(FMAError) if kind.__module__.startswith(ours) and kind.__name__[0] != "_"]

    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(400 <= status_of(kind("x")) < 600 for kind in kinds)
    assert status_of(StorageUnavailable("x")) == 503
    assert status_of(api_errors.LengthRequired("x")) == 411


def test_a_database_that_is_away_is_503(owner: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OperationalError("connection to 10.0.0.7 refused")

    monkeypatch.setattr("fma_django.experiments.changes.create_once", refuse)
    answer = owner.post(f"{API}models/", {"name": "m", "aggregator": "mean"})

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json()["code"] == "database_unavailable"
    assert "10.0.0.7" not in answer.content.decode()


def test_a_login_of_megabytes_is_refused_unread(anonymous: APIClient) -> None:
    answer = anonymous.post("/api-token-auth/", {"username": "alice", "password": "x" * 2**20})

    assert answer.status_code == 413


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("models/4711/", "federated model 4711"),
        ("models/4711/rounds/", "federated model 4711"),
        ("model_aggregates/12/weights/", "model aggregate 12"),
        ("model_artifacts/9/", "model artifact 9"),
        ("client_aggregate_scores/8/", "client aggregate score 8"),
        ("evaluations/7/", "evaluation round 7"),
        ("clients/0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd/", "client 0d3e1c4c-9c39-4d6f-8e9b-3ae8d2a7a3fd"),
        ("modles/", "/api/v1/modles/"),
    ],
)
def test_a_404_names_what_is_not_there(owner: APIClient, path: str, named: str) -> None:
    answer = owner.get(f"{API}{path}")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert named in answer.json()["detail"]


@pytest.mark.django_db
def test_a_404_names_the_round_and_its_model(owner: APIClient, model: FederatedModel) -> None:
    detail = owner.get(f"{API}models/{model.pk}/rounds/77/").json()["detail"]
    assert detail.startswith(f"There is no round 77 of {model.pk}")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("models/", ["application/json"]),
        ("model_updates/", ["application/json", "application/vnd.safetensors"]),
        ("/api-token-auth/", ["application/json", "application/x-www-form-urlencoded"]),
    ],
)
def test_a_415_lists_what_is_taken(owner: APIClient, path: str, taken: list[str]) -> None:
    url = path if path.startswith("/") else f"{API}{path}"

    answer = owner.generic("POST", url, b"<xml/>", "text/xml")

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "text/xml" in answer.json()["detail"]
    assert all(kind in answer.json()["detail"] for kind in taken)


@pytest.mark.django_db
@pytest.mark.parametrize("accept", ["text/html", "image/png", "application/xml", "text/html,*/*;q=0.8"])
@pytest.mark.parametrize(
    ("url", "beginning"), [("/api/schema/", b"openapi: 3.1"), ("/api/docs/", b"<!DOCTYPE")]
)
def test_the_documentation_is_shown_whatever_is_accepted(
    anonymous: APIClient, url: str, beginning: bytes, accept: str
) -> None:
    answer = anonymous.get(url, headers={"accept": accept})

    assert answer.status_code == 200
    assert beginning in answer.content[:200]


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/api/schema/", "/api/docs/"])
def test_errors_of_the_documentation_are_problems(anonymous: APIClient, url: str) -> None:
    wrong = anonymous.post(url)
    unknown = anonymous.get(url, headers={"client-uuid": "nonsense", "accept": "text/html"})

    for answer, status, code in ((wrong, 405, "method_not_allowed"), (unknown, 401, "unknown_client")):
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
        assert json.loads(answer.content)["code"] == code
