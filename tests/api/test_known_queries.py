"""A parameter that a route does not take is refused on every route, once the caller is known."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from django.db import transaction
from django.urls import resolve
from rest_framework.test import APIClient

from fma_api.v1.known_queries import parameters_of
from fma_api.v1.schema import ProblemSchema
from fma_api.v1.unknown_names import LONGEST_NAME, MOST_NAMES
from fma_core.arrays.codecs.safetensors import encode
from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel, ModelUpdate
from tests.api.callers import API, SAFETENSORS
from tests.api.test_permissions import EXPECTED, TUS, World, _body, world
from tests.records import arrays

__all__ = ["world"]

# No JSON: pages, and checks of health.
NOT_ASKED = {"/", "/healthz", "/readyz", "/api/docs/"}
ROUTES = [(method, path) for method, path in EXPECTED if path not in NOT_ASKED]


def ask(world: World, caller: str, method: str, path: str, query: str) -> Any:
    url = world.url(path)
    with transaction.atomic():
        answer = world.callers[caller].generic(
            method,
            f"{url}{'&' if '?' in url else '?'}{query}",
            *_body(world.bodies.get((method, path))),
            HTTP_ACCEPT="*/*",
            headers=TUS,
        )
        transaction.set_rollback(True)
    return answer


def allowed(method: str, path: str) -> str:
    """The name of a caller who may ask there."""
    statuses = EXPECTED[method, path]
    refused = (401, 403, 404)
    return next(name for name in ("registered", "staff", "owner") if statuses[name] not in refused)


@pytest.mark.untraced
def test_every_route_refuses_an_unknown_parameter(world: World) -> None:
    for method, path in ROUTES:
        answer = ask(world, allowed(method, path), method, path, "no_such_parameter=3")

        assert answer.status_code == 400, (method, path, answer.status_code)
        assert "no_such_parameter" in answer.json()["errors"], (method, path)


@pytest.mark.untraced
def test_every_route_takes_the_format(world: World) -> None:
    for method, path in ROUTES:
        answer = ask(world, allowed(method, path), method, path, "format=json")

        assert "The query takes no" not in str(getattr(answer, "data", "")), (method, path)


@pytest.mark.untraced
def test_every_route_asks_first_who_calls(world: World) -> None:
    for method, path in ROUTES:
        for caller in ("anonymous", "bad", "revoked"):
            expected = EXPECTED[method, path][caller]
            if expected == 401:
                answer = ask(world, caller, method, path, "no_such_parameter=3")
                assert answer.status_code == 401, (caller, method, path)


@pytest.mark.parametrize(
    ("path", "written", "meant"),
    [
        ("model_updates/", "federated_modl", "federated_model"),
        ("model_updates/", "statu", "status"),
        ("model_aggregates/", "pagesize", "page_size"),
        ("models/", "orderin", "ordering"),
        ("models/{model}/metrics/", "metrics", "metric"),
        ("models/{model}/metrics/", "first_rond", "first_round"),
        ("models/{model}/participation/", "organization", "organisation"),
        ("models/{model}/rounds/", "page_sizes", "page_size"),
        ("evaluations/", "waits", "wait"),
        ("algorithms/", "kinds", "kind"),
    ],
)
def test_the_answer_says_what_was_meant(
    owner: APIClient, model: FederatedModel, path: str, written: str, meant: str
) -> None:
    answer = owner.get(f"{API}{path.format(model=model.pk)}?{written}=1")

    assert answer.status_code == 400
    assert answer.json()["errors"] == {written: [f"The query takes no {written!r}; did you mean {meant!r}?"]}
    assert answer.json()["code"] == "invalid"


def test_a_misspelt_fact_of_an_update_is_refused(device: APIClient, model: FederatedModel) -> None:
    url = f"{API}model_updates/?federated_model={model.pk}&num_example=10"

    answer = device.generic("POST", url, encode(arrays()), SAFETENSORS)

    assert answer.status_code == 400
    assert answer.json()["num_example"] == ["The query takes no 'num_example'; did you mean 'num_examples'?"]
    assert not ModelUpdate.objects.exists()


@pytest.mark.parametrize(
    ("path", "accept"), [("get_latest_model", SAFETENSORS), ("get_latest_aggregate", "application/json")]
)
def test_the_fast_answers_refuse_it_too(
    device: APIClient, model: FederatedModel, path: str, accept: str
) -> None:
    answer = device.get(f"{API}models/{model.pk}/{path}/?aftr=0", headers={"accept": accept})

    assert answer.json()["aftr"] == ["The query takes no 'aftr'; did you mean 'after'?"]


def test_an_upload_that_is_finished_refuses_it_too(device: APIClient) -> None:
    answer = device.post(f"{API}model_updates/?upload=nothing&num_exmples=3")

    assert list(answer.json()["errors"]) == ["num_exmples"]


def test_facts_in_the_query_of_a_json_body_are_refused(
    device: APIClient, ann: Registration, model: FederatedModel
) -> None:
    body = {"federated_model": model.pk, "data": [1.0]}

    answer = device.post(f"{API}model_updates/?num_examples=10", body)

    assert answer.status_code == 400
    assert answer.json()["num_examples"] == ["The body is JSON: the facts of the update are members of it."]


def test_a_developer_names_the_client_of_a_binary_update(
    owner: APIClient, ann: Registration, model: FederatedModel
) -> None:
    url = f"{API}model_updates/?federated_model={model.pk}&client={ann.client.pk}"

    assert owner.generic("POST", url, encode(arrays()), SAFETENSORS).status_code == 201


def test_a_method_that_is_not_there_is_still_the_first_thing_wrong(owner: APIClient) -> None:
    assert owner.delete(f"{API}algorithms/?nothing=1").status_code == 405
    assert owner.options(f"{API}algorithms/?nothing=1").status_code == 200


def test_head_is_asked_like_get(owner: APIClient) -> None:
    assert owner.head(f"{API}models/?nothing=1").status_code == 400
    assert owner.head(f"{API}models/?page_size=1").status_code == 200


def test_a_problem_of_the_document_is_json(anonymous: APIClient) -> None:
    misspelt = anonymous.get("/api/schema/?formt=json")

    assert misspelt.json()["errors"] == {"formt": ["The query takes no 'formt'; did you mean 'format'?"]}


def test_a_misspelt_member_of_an_update_is_refused(device: APIClient, model: FederatedModel) -> None:
    body = {"federated_model": model.pk, "data": [1.0], "num_example": 10}

    answer = device.post(f"{API}model_updates/", body)

    assert answer.status_code == 400
    assert answer.json()["num_example"] == ["There is no 'num_example'; did you mean 'num_examples'?"]


def test_another_member_of_an_update_is_ignored_as_by_fma(device: APIClient, model: FederatedModel) -> None:
    body = {"federated_model": model.pk, "data": [1.0], "note": "from the field"}

    assert device.post(f"{API}model_updates/", body).status_code == 201


def test_one_thread_at_a_time_describes_operations(
    monkeypatch: pytest.MonkeyPatch, anonymous: APIClient
) -> None:
    describe, running, most = ProblemSchema.get_operation, 0, 0

    def watched(self: ProblemSchema, *args: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.05)
        try:
            return describe(self, *args)
        finally:
            running -= 1

    monkeypatch.setattr(ProblemSchema, "get_operation", watched)
    callback = cast("Any", resolve(f"{API}models/")).func
    parameters_of.cache_clear()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: parameters_of(callback, "GET"), range(8)))

    assert most == 1
    assert all("page_size" in names for names in found)


def test_no_more_of_a_long_name_comes_back(owner: APIClient) -> None:
    for path in ("algorithms/", "models/", "model_updates/"):
        answer = owner.get(f"{API}{path}?{'n' * 60_000}=1&{'page_size' * 7_000}=2")

        assert answer.status_code == 400
        assert max(len(name) for name in answer.json()["errors"]) == LONGEST_NAME
        assert len(answer.content) < 3_000


@pytest.mark.parametrize("name", ["n" * 60_000, "num_examples" * 5_000])
def test_no_more_of_a_long_member_comes_back(
    owner: APIClient, device: APIClient, model: FederatedModel, name: str
) -> None:
    tus = {"Tus-Resumable": "1.0.0"}
    uploads = f"{API}uploads/"
    begun = device.post(
        f"{uploads}?federated_model={model.pk}&num_examples=3", headers={**tus, "Upload-Length": "100"}
    )
    upload = begun.json()["id"]
    answers = [
        device.post(uploads, {"federated_model": model.pk, name: 1}, headers={**tus, "Upload-Length": "100"}),
        device.post(f"{API}model_updates/?upload={upload}", {name: 1}),
        device.post(f"{API}clients/me/telemetry/", {name[:10_000]: 1}),
        owner.post(f"{API}models/{model.pk}/evaluations/", {"metrics": [], name: 1}),
    ]

    for answer in answers:
        assert answer.status_code == 400, answer.content[:300]
        assert max(len(member) for member in answer.json()["errors"]) == LONGEST_NAME
        assert len(answer.content) < 3_000


def test_no_more_than_some_of_many_names_come_back(owner: APIClient, model: FederatedModel) -> None:
    many = {f"rule{number}": 1 for number in range(5_000)}

    answer = owner.post(f"{API}models/{model.pk}/evaluations/", {"metrics": [], **many})

    assert answer.status_code == 400
    assert len(answer.json()["errors"]) == MOST_NAMES


def test_the_collections_are_the_same_in_every_format(owner: APIClient) -> None:
    plain = owner.get(API).json()

    assert len(plain) > 5
    assert owner.get(f"{API}?format=json").json().keys() == plain.keys()
    assert all(f"/{name}/" in url for name, url in plain.items())
