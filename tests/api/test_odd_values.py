"""Odd values in every path and every parameter of the OpenAPI document: never a server error, on every database."""

from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.core.cache import cache
from rest_framework.test import APIClient

from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel
from tests.api.callers import API, as_client, as_user
from tests.evaluations import open_to
from tests.records import WEIGHTS, make_aggregate, make_client, make_model, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.untraced]

ODD = (
    "", " ", "0", "-0", "00", "1", "-1", "+1", "1.0", "1e3", "0x1", "1_0", "1 ", "9" * 18, "9" * 19, str(2**63),
    "9" * 40, "9" * 5000, "²", "٣", "nan", "-inf", "1e400", "true", "null", "[]", "{}", "[1", '"', "\x00", "\n", "ſ",
    "\U0010ffff",
    ",", "-", "--pk", "pk", "id", "..", "%", "%00", "cD0xJnBrPTE=", "00000000-0000-0000-0000-000000000000",
    "{00000000-0000-0000-0000-00000000000f}", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30",
    "2026-01-01T00:00", "json", "csv", "x" * 3000,
)  # fmt: skip
# Parameters that many operations read by the same code: each operation gets a quarter of the values, by turns.
SHARED = {"id", "page", "page_size", "ordering", "federated_model"}
TURNS = 4
PARTS = 8
METHODS = ("get", "head", "options", "put", "patch", "post", "delete")
# Deleted or ended early, the rows of the others would not be met.
ENDING = ("delete", "post")


@pytest.fixture
def record(alice: Any) -> FederatedModel:
    """A model with something in it, whose ids are as good as always 1."""
    model = make_model(alice, initial_model=WEIGHTS)
    make_aggregate(model)
    return model


@pytest.fixture
def callers(alice: Any, record: FederatedModel) -> list[APIClient]:
    for _ in range(3):
        make_client(record)
    open_to(record)
    registration: Registration = make_client(record)  # for which no evaluation waits
    return [as_user(alice), as_client(registration), as_user(make_user(staff=True))]


def operations(anonymous: APIClient) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """All of them, those that remove something or end it after the others."""
    document = anonymous.get("/api/schema/?format=json").json()
    listed = [
        (method, path, operation.get("parameters", []))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    yield from sorted(listed, key=lambda each: (each[0] == "delete" or "cancel" in each[1], each[1], each[0]))


def url_of(path: str, parameters: list[dict[str, Any]], values: dict[str, str], known: dict[str, str]) -> str:
    for parameter in parameters:
        if parameter["in"] == "path":
            name = parameter["name"]
            path = path.replace(f"{{{name}}}", quote(values.get(name, known.get(name, "1")), safe=""))
    query = {
        parameter["name"]: values[parameter["name"]]
        for parameter in parameters
        if parameter["in"] == "query" and parameter["name"] in values
    }
    return f"{path}?{urlencode(query)}" if query else path


def require_no_server_error(caller: APIClient, method: str, url: str, **headers: str) -> None:
    answer: Any = caller.generic(method.upper(), url, headers=headers)
    if getattr(answer, "streaming", False):
        b"".join(answer.streaming_content)
    assert answer.status_code < 500, (method, url, headers, answer.content)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_odd_values_in_every_parameter(
    anonymous: APIClient, callers: list[APIClient], record: FederatedModel, part: int
) -> None:
    known = {"id": str(record.pk), "number": "1"}
    callers_in_turn = cycle(callers)
    turns: Counter[str] = Counter()
    num_requests = 0
    for place, (method, path, parameters) in enumerate(operations(anonymous)):
        for parameter in parameters:
            turns[parameter["name"]] += 1
            if place % PARTS != part or parameter["in"] not in ("path", "query"):
                continue
            turn = turns[parameter["name"]] % TURNS
            odd = ODD[turn::TURNS] if parameter["name"] in SHARED else ODD
            for value in odd:
                values = {parameter["name"]: value}
                if parameter["in"] == "query" and parameter["name"] != "wait":
                    # Many parameters mean something only beside another one.
                    values |= {"wait": "0.01", "after": "0"} if num_requests % 2 else {}
                    values[parameter["name"]] = value
                require_no_server_error(
                    next(callers_in_turn), method, url_of(path, parameters, values, known)
                )
                num_requests += 1
    assert num_requests > 200


def test_every_method_on_every_path(
    anonymous: APIClient, callers: list[APIClient], record: FederatedModel
) -> None:
    known = {"id": str(record.pk), "number": "1"}
    paths = {path: parameters for _, path, parameters in operations(anonymous)}
    others = ["/api/docs/", "/api/schema/", "/api/", "/healthz", "/", "/admin/login/"]
    turns = cycle(callers)
    for method in METHODS:
        for path, parameters in [*paths.items(), *((path, []) for path in others)]:
            for caller in (anonymous,) if method in ENDING else (anonymous, next(turns)):
                require_no_server_error(caller, method, url_of(path, parameters, {}, known))
                cache.clear()  # of limits of attempts


@pytest.mark.parametrize(
    "credential", ["", "x", "\x00", "²", "é", "0" * 36, "{}", "9" * 5000, "ſ".encode().decode("latin-1")]
)
def test_a_credential_that_is_none(anonymous: APIClient, record: FederatedModel, credential: str) -> None:
    for method, path, parameters in operations(anonymous):
        for values in ({}, {"after": "0"}, {"after": "0", "wait": "1"}, {"upload": "1"}):
            url = url_of(path, parameters, values, {"id": str(record.pk), "number": "1"})
            for accept in ("*/*", "application/vnd.safetensors"):
                if method == "get" or values == {}:
                    require_no_server_error(
                        anonymous, method, url, **{"client-uuid": credential, "accept": accept}
                    )
                    cache.clear()


@pytest.mark.parametrize(
    "end_date",
    [
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T24:00:00-00:01",
        "2027-01-31T12:00:00Z",
    ],
)
def test_an_end_date_of_any_year(
    owner: APIClient, device: APIClient, model: FederatedModel, end_date: str
) -> None:
    for path, method in ((f"{API}models/", "post"), (f"{API}models/{model.pk}/", "patch")):
        body = {"name": "m", "aggregator": "mean", "round_policy": {"end_date": end_date}}
        answer = getattr(owner, method)(path, body, format="json")
        assert answer.status_code in (200, 201, 400), answer.content
        if answer.status_code == 400:
            assert "end_date" in answer.json()["detail"]
    assert device.get(f"{API}models/{model.pk}/rounds/1/").status_code == 200
