"""JSON that is parsed in a process of its own is answered as JSON that is parsed here."""

import io
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from fma_api import parsers
from fma_core.arrays.codecs import json_bytes, json_layouts
from fma_django.models import FederatedModel, IdempotencyKey, ModelUpdate
from fma_django.record import json_process, json_weights
from fma_django.record.json_memory import memory
from tests.api.callers import API, as_client, stored_files
from tests.records import WEIGHTS, make_client, make_model

UPDATES = f"{API}model_updates/"
Send = Callable[[], Any]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[Send], tuple[Any, Any]]:
    """The answers to a request whose JSON is parsed here, and whose JSON is parsed by the process."""

    def ask(send: Send) -> tuple[Any, Any]:
        found = []
        for most in (10**9, 0):
            monkeypatch.setattr(parsers, "SMALL_JSON_BYTES", most)
            answer = send()
            found.append((answer.status_code, without_ids(answer.json()), answer.headers.get("Retry-After")))
        return found[0], found[1]

    return ask


def without_ids(members: Any) -> Any:
    if not isinstance(members, dict):
        return members
    unlike = {
        "id",
        "federated_model",
        "data",
        "values",
        "model",
        "artifact",
        "current_artifact",
        "subject",
        "seed",
    }
    return {
        name: member
        for name, member in members.items()
        if (name not in unlike or isinstance(member, list)) and not name.endswith(("_on", "_at", "_modified"))
    }


UPDATE = {"data": WEIGHTS, "num_examples": 3, "metrics": {"loss": 0.5, "more": [1, 2**63, -0.0, 1e308]}}
BODIES: dict[str, Any] = {
    "valid": UPDATE,
    "another shape": {**UPDATE, "data": {"b": [0.0], "w": [[1.0, 2.0], [3.0, 4.0]]}},
    "no array": {**UPDATE, "data": {"b": [0.0, 1.0]}},
    "one more": {**UPDATE, "data": {**WEIGHTS, "x": [1.0]}},
    "ragged": {**UPDATE, "data": {**WEIGHTS, "b": [[0.0], [1.0, 2.0]]}},
    "text": {**UPDATE, "data": {**WEIGHTS, "b": ["0.0", 1.0]}},
    "texts": {**UPDATE, "data": "text"},
    "list": {**UPDATE, "data": [1.0, 2.0]},
    "number": {**UPDATE, "data": 1},
    "null": {**UPDATE, "data": None},
    "empty": {**UPDATE, "data": {}},
    "nothing": {"num_examples": 3},
    "rounded": {**UPDATE, "data": {**WEIGHTS, "b": [1e-320, 0.1]}},
    "beyond float64": {**UPDATE, "data": {**WEIGHTS, "b": [10**400, 1.0]}},
    "num_examples": {**UPDATE, "num_examples": 0},
    "metrics": {**UPDATE, "metrics": [1]},
    "misspelt": {**UPDATE, "num_exmples": 3},
    "another member": {**UPDATE, "note": {"any": ["thing"]}},
    "client": {**UPDATE, "client": "someone"},
    "base": {**UPDATE, "base_aggregate": "x"},
}
TEXTS = {
    "a list": b"[1, 2]",
    "a text": b'"text"',
    "null": b"null",
    "a number": b"1.5",
    "no JSON": b'{"federated_model": 1, "data": [1,}',
    "NaN": b'{"federated_model": 1, "data": [NaN]}',
    "too deep": b'{"data": %s}' % (b"[" * 300 + b"]" * 300),
    "no UTF-8": b'{"data": "\xff"}',
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", BODIES)
def test_an_update_is_answered_the_same(
    device: APIClient, model: FederatedModel, alice: Any, told: Any, name: str
) -> None:
    model = make_model(alice, initial_model=WEIGHTS)
    caller = as_client(make_client(model))
    body = {"federated_model": model.pk, **BODIES[name]}

    here, there = told(lambda: caller.post(UPDATES, body))

    assert here == there
    assert (here[0] == 201) == (name in {"valid", "another member", "rounded"})
    assert len(set(ModelUpdate.objects.values_list("sha256", flat=True))) <= 1


@pytest.mark.django_db
@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    "path", ["model_updates/", "models/", "models/{}/initial_model/", "models/{}/evaluations/"]
)
def test_a_body_that_is_no_object_is_answered_the_same(
    owner: APIClient, alice: Any, told: Any, name: str, path: str
) -> None:
    def send() -> Any:
        url = API + path.format(make_model(alice).pk)
        return owner.generic("POST", url, TEXTS[name], "application/json")

    here, there = told(send)

    assert here == there
    assert here[0] >= 400 or (name, path) == ("a list", "models/{}/initial_model/")


WEIGHTS_OF_A_MODEL = {
    "named": WEIGHTS,
    "layers": [[[1.0, 2.0], [3.0, 4.0]], [0.5]],
    "one array": [[1.0, 2.0]],
    "ragged": {"w": [[1.0], [2.0, 3.0]]},
    "text": "text",
    "number": 1.5,
    "null": None,
    "empty": [],
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", WEIGHTS_OF_A_MODEL)
def test_first_weights_are_answered_the_same(owner: APIClient, alice: Any, told: Any, name: str) -> None:
    value = WEIGHTS_OF_A_MODEL[name]
    here, there = told(lambda: owner.post(f"{API}models/{make_model(alice).pk}/initial_model/", value))
    assert here == there

    here, there = told(
        lambda: owner.post(f"{API}models/", {"name": "m", "aggregator": "mean", "initial_model": value})
    )
    assert here == there
    specs = FederatedModel.objects.order_by("-pk").values_list("spec", "weights_layout")[:2]
    assert specs[0] == specs[1]


@pytest.mark.django_db
@pytest.mark.parametrize("name", WEIGHTS_OF_A_MODEL)
def test_weights_to_evaluate_are_answered_the_same(
    owner: APIClient, alice: Any, told: Any, name: str
) -> None:
    model = make_model(alice, initial_model=WEIGHTS)
    for _ in range(3):
        make_client(model)
    body = {"question": {"task": "regression"}, "weights": WEIGHTS_OF_A_MODEL[name]}
    here, there = told(lambda: owner.post(f"{API}models/{model.pk}/evaluations/", body))

    assert here == there


@pytest.mark.django_db
def test_a_schema_is_applied_in_both(alice: Any, told: Any) -> None:
    schema = {"properties": {"b": {"items": {"maximum": 1}}}}
    model = make_model(alice, initial_model=WEIGHTS, update_schema=schema)
    caller = as_client(make_client(model))
    body = {"federated_model": model.pk, "data": {**WEIGHTS, "b": [0.0, 2.0]}}

    here, there = told(lambda: caller.post(UPDATES, body))

    assert here == there
    assert here[1]["code"] == "schema_violation"


@pytest.mark.django_db
def test_a_key_makes_one_model_of_either(owner: APIClient, told: Any) -> None:
    body = {"name": "m", "aggregator": "mean", "initial_model": WEIGHTS}
    headers = {"Idempotency-Key": "once"}
    here, there = told(lambda: owner.post(f"{API}models/", body, headers=headers))
    other = owner.post(f"{API}models/", {**body, "initial_model": {"w": [1.0]}}, headers=headers)

    assert here == there
    assert here[0] == 201
    assert FederatedModel.objects.count() == IdempotencyKey.objects.count() == 1
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.django_db
def test_a_digest_is_checked_before_anything_is_parsed(
    device: APIClient, model: FederatedModel, told: Any
) -> None:
    body = json.dumps({"federated_model": model.pk, "data": WEIGHTS}).encode()
    headers = {"Content-Digest": "sha-256=:" + "A" * 43 + "=:"}
    here, there = told(lambda: device.generic("POST", UPDATES, body, "application/json", headers=headers))

    assert here == there
    assert here[1]["code"] == "digest_mismatch"


LARGE = {"w": [[0.5] * 40_000]}


@pytest.mark.django_db
@pytest.mark.parametrize("what", ["update", "model", "initial_model", "evaluation"])
def test_large_weights_are_not_parsed_here(
    owner: APIClient, alice: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    model = make_model(alice)
    if what == "evaluation":
        model = make_model(alice, initial_model=LARGE)
    device, *_ = [as_client(make_client(model)) for _ in range(3)]
    caller, path, body = {
        "update": (device, "model_updates/", {"federated_model": model.pk, "data": LARGE}),
        "model": (owner, "models/", {"name": "m", "aggregator": "mean", "initial_model": LARGE}),
        "initial_model": (owner, f"models/{model.pk}/initial_model/", LARGE),
        "evaluation": (
            owner,
            f"models/{model.pk}/evaluations/",
            {"question": {"task": "regression"}, "weights": LARGE},
        ),
    }[what]
    text = json.dumps(body)
    loads = json_bytes.loads

    def small_alone(data: bytes) -> object:
        assert len(data) <= 2**16
        return loads(data)

    monkeypatch.setattr(json_bytes, "loads", small_alone)
    monkeypatch.setattr(json_layouts, "arrays_of", lambda *_, **__: pytest.fail("arrays were made here"))
    monkeypatch.setattr(json_weights, "arrays_of", lambda *_, **__: pytest.fail("arrays were made here"))

    assert caller.generic("POST", API + path, text, "application/json").status_code == 201


@pytest.mark.django_db
def test_a_process_that_dies_is_503_leaves_nothing_and_the_next_is_taken(
    model: FederatedModel, device: APIClient, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = json_process.LargeJson.parse

    def parse_and_die(body: Any, **more: Any) -> Any:
        value = parse(body, **more)
        os.kill(body._process._process.pid, signal.SIGKILL)
        return value

    before = stored_files(storage)
    body = {"federated_model": model.pk, "data": LARGE}
    monkeypatch.setattr(json_process.LargeJson, "parse", parse_and_die)
    refused = device.post(UPDATES, body)
    monkeypatch.undo()

    assert (refused.status_code, refused.json()["code"]) == (503, "json_process_ended")
    assert int(refused["Retry-After"]) > 0
    assert stored_files(storage) == before
    assert memory.reserved_bytes == 0
    assert device.post(UPDATES, body).status_code == 201


@pytest.mark.django_db
def test_a_process_that_is_taken_for_too_long_is_503(
    model: FederatedModel, device: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_process, "WAIT_S", 0.05)
    other = json_process.LargeJson([b"[]"], 2)
    refused = device.post(UPDATES, {"federated_model": model.pk, "data": LARGE})
    other.close()

    assert (refused.status_code, refused.json()["code"]) == (503, "memory_in_use")
    assert int(refused["Retry-After"]) > 0


@pytest.mark.django_db
@pytest.mark.parametrize("fault", ["refused", "lost"])
def test_a_request_that_fails_leaves_the_process_to_others(
    model: FederatedModel, device: APIClient, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(json_process, "WAIT_S", 0.05)
    data = {"w": [["x"] * 40_000]} if fault == "refused" else LARGE
    text = json.dumps({"federated_model": model.pk, "data": data}).encode()
    more = {"CONTENT_LENGTH": str(len(text) + 1), "wsgi.input": io.BytesIO(text)} if fault == "lost" else {}
    refused = device.generic("POST", UPDATES, text, "application/json", **more)

    assert refused.json()["code"] == ("malformed_json" if fault == "refused" else "truncated_body")
    json_process.LargeJson([b"[]"], 2).close()


@pytest.mark.django_db
def test_memory_that_is_not_there_leaves_the_process_to_others(
    model: FederatedModel, device: APIClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_process, "WAIT_S", 0.05)
    settings.FMA_JSON_MEMORY_BYTES = 2**20
    refused = device.post(UPDATES, {"federated_model": model.pk, "data": LARGE})

    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    json_process.LargeJson([b"[]"], 2).close()
    assert memory.reserved_bytes == 0


@pytest.mark.django_db
@pytest.mark.parametrize("size", [2**20, 2**20 + 1])
def test_json_without_weights_is_refused_beyond_a_mebibyte(device: APIClient, size: int) -> None:
    text = b'{"aggregate": 0, "validation_results": {}}'.ljust(size)
    refused = device.generic("POST", f"{API}client_aggregate_scores/", text, "application/json")

    assert (refused.json()["code"] == "too_large") == (size > 2**20)
    if size > 2**20:
        assert refused.status_code == 413
        assert "may have 1048576 bytes; this one has 1048577" in refused.json()["detail"]


@pytest.mark.django_db
@pytest.mark.parametrize("unit", ["[],", "{},"])
def test_json_without_weights_of_many_lists_is_refused(device: APIClient, unit: str) -> None:
    text = '{"aggregate": 0, "validation_results": [%s0]}' % (unit * 100_000)
    refused = device.generic("POST", f"{API}client_aggregate_scores/", text, "application/json")

    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert "20000 lists and objects" in refused.json()["detail"]
