"""Bad input: a clear 4xx that says what was expected; no row, no file, nothing that the aggregation sees."""

import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from rest_framework.test import APIClient
from safetensors.numpy import save

from fma_core.arrays.codecs.safetensors import encode
from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel, IdempotencyKey, ModelUpdate
from tests.api.callers import API, SAFETENSORS, as_client, stored_files
from tests.records import WEIGHTS, arrays, make_aggregate, make_client, make_model, weights

UPDATES = f"{API}model_updates/"
pytestmark = pytest.mark.django_db
NAN = float("nan")


def sent_arrays(**changes: Any) -> bytes:
    """By the library of the format itself: ours refuses to write what is wrong."""
    kept = {name: value for name, value in {**arrays(), **changes}.items() if value is not None}
    return save(kept)


@pytest.fixture
def model(alice: Any) -> FederatedModel:
    return make_model(alice, initial_model=WEIGHTS, requirement="require_x_updates", requirement_args=[1])


@pytest.fixture
def files(storage: Path, model: FederatedModel) -> list[str]:
    return stored_files(storage)


def require_nothing_left(storage: Path, files: list[str], model: FederatedModel) -> None:
    assert not ModelUpdate.objects.exists()
    assert not IdempotencyKey.objects.exists()
    assert stored_files(storage) == files
    current = model.rounds.get()
    assert (current.num_updates, current.ready_on, current.state) == (0, None, "collecting")


WRONG_BYTES = [
    ("an array less", sent_arrays(w=None), 422, "missing_array", "'w'"),
    ("an array more", sent_arrays(x=np.zeros(1)), 422, "unexpected_array", "'x'"),
    ("another shape", sent_arrays(w=np.zeros((2, 3))), 422, "shape_mismatch", "(2, 2)"),
    ("another dtype", sent_arrays(w=np.zeros((2, 2), "float32")), 422, "dtype_mismatch", "float64"),
    ("a NaN", sent_arrays(w=np.full((2, 2), NAN)), 422, "non_finite_value", "'w'"),
    ("an infinity", sent_arrays(b=np.array([0, np.inf])), 422, "non_finite_value", "'b'"),
    ("no safetensors", b"x" * 64, 400, "malformed_safetensors", ""),
    ("a header only", encode(arrays())[:40], 400, "", ""),
    ("bytes at the end", encode(arrays()) + b"!", 400, "malformed_safetensors", ""),
    ("a byte less", encode(arrays())[:-1], 400, "", ""),
    ("one byte", b"x", 400, "", ""),
]


@pytest.mark.parametrize(("what", "body", "status", "code", "expected"), WRONG_BYTES)
def test_wrong_bytes(
    device: APIClient, model: FederatedModel, storage: Path, files: list[str],
    what: str, body: bytes, status: int, code: str, expected: str,
) -> None:  # fmt: skip
    answer = device.generic(
        "POST", f"{UPDATES}?federated_model={model.pk}", body, SAFETENSORS, HTTP_IDEMPOTENCY_KEY="k"
    )

    said = answer.json()
    assert answer.status_code == status, said
    assert said["code"] == code or not code
    assert expected in said["data"][0] == said["detail"]
    require_nothing_left(storage, files, model)


WRONG_JSON = [
    ("an array less", {"w": [[1, 2], [3, 4]]}, "missing_array"),
    ("an array more", {**weights(), "x": [1]}, "unexpected_array"),
    ("another shape", {**weights(), "b": [1, 2, 3]}, "shape_mismatch"),
    ("ragged", {**weights(), "w": [[1, 2], [3]]}, "malformed_json"),
    ("a word", {**weights(), "b": ["one", 2]}, "malformed_json"),
    ("null", {**weights(), "b": [None, 2]}, "malformed_json"),
    ("a boolean", {**weights(), "b": [True, 2]}, ""),
    ("an empty object", {}, ""),
    ("an empty list", [], ""),
    ("another layout", [[1, 2], [3, 4]], ""),
    ("a number", 3, ""),
    ("a sentence", "weights", ""),
]


@pytest.mark.parametrize(("what", "data", "code"), WRONG_JSON)
def test_wrong_json(
    device: APIClient, model: FederatedModel, storage: Path, files: list[str], what: str, data: Any, code: str
) -> None:
    answer = device.post(UPDATES, {"federated_model": model.pk, "data": data})

    said = answer.json()
    assert answer.status_code in (400, 422), said
    assert said["code"] == code or not code
    assert said["data"]
    require_nothing_left(storage, files, model)


@pytest.mark.parametrize(
    "body",
    [
        b'{"federated_model": %d, "data": {"b": [NaN, 1], "w": [[1,2],[3,4]]}}',
        b'{"federated_model": %d, "data": {"b": [Infinity, 1], "w": [[1,2],[3,4]]}}',
        b'{"federated_model": %d, "data": {"b": [1e999, 1], "w": [[1,2],[3,4]]}}',
        b'{"federated_model": %d, "data": ' + b"[" * 100_000,
        b'{"federated_model": %d, "data": {"b": [1',
        b'{"federated_model": %d, "data": "\xff"}',
        b'["federated_model", %d]',
        b"null %d",
    ],
)
def test_json_that_is_none(
    device: APIClient, model: FederatedModel, storage: Path, files: list[str], body: bytes
) -> None:
    answer = device.generic("POST", UPDATES, body % model.pk, "application/json")

    assert answer.status_code in (400, 422)
    assert answer.json()["code"]
    require_nothing_left(storage, files, model)


def test_a_body_that_ends_before_its_length(
    device: APIClient, model: FederatedModel, storage: Path, files: list[str]
) -> None:
    body = encode(arrays())

    for size in (len(body) + 1, len(body) * 2):
        answer = device.generic(
            "POST",
            f"{UPDATES}?federated_model={model.pk}",
            body,
            SAFETENSORS,
            **{"CONTENT_LENGTH": str(size), "wsgi.input": io.BytesIO(body)},
        )
        assert answer.status_code == 400
        assert answer.json()["code"] in ("truncated_body", "malformed_safetensors")
    require_nothing_left(storage, files, model)


def test_a_body_that_is_cut_off_after_its_header(
    device: APIClient, model: FederatedModel, storage: Path, files: list[str]
) -> None:
    body = encode(arrays())

    answer = device.generic(
        "POST",
        f"{UPDATES}?federated_model={model.pk}",
        body[:-8],
        SAFETENSORS,
        **{"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body[:-8])},
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "truncated_body")
    require_nothing_left(storage, files, model)


@pytest.mark.parametrize(
    ("content_type", "setting"),
    [(SAFETENSORS, "FMA_MAX_UPDATE_BYTES"), ("application/json", "FMA_MAX_JSON_BYTES")],
)
def test_a_body_that_is_too_large_is_413_before_it_is_read(
    device: APIClient, model: FederatedModel, storage: Path, files: list[str], settings: Any,
    content_type: str, setting: str,
) -> None:  # fmt: skip
    setattr(settings, setting, 100)
    body = encode(arrays())

    answer = device.generic("POST", f"{UPDATES}?federated_model={model.pk}", body, content_type)

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert "100" in answer.json()["detail"]
    assert answer.wsgi_request.read() == body
    require_nothing_left(storage, files, model)


@pytest.mark.parametrize("length", ["many", "-5", "1" * 5000])
def test_a_length_that_is_no_number(device: APIClient, model: FederatedModel, length: str) -> None:
    answer = device.generic(
        "POST",
        f"{UPDATES}?federated_model={model.pk}",
        encode(arrays()),
        SAFETENSORS,
        CONTENT_LENGTH=length,
    )

    assert 400 <= answer.status_code < 500


def test_a_base_of_another_model(
    device: APIClient, model: FederatedModel, storage: Path, ann: Registration
) -> None:
    other = make_aggregate(make_model())
    files = stored_files(storage)
    for base in (other.pk, 10**6):
        answer = device.post(
            UPDATES, {"federated_model": model.pk, "data": weights(5.0), "base_aggregate": base}
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "unknown_base_aggregate")
        assert str(base) in answer.json()["base_aggregate"][0]
    assert not model.model_updates.exists()
    assert stored_files(storage) == files


def test_a_strangers_update(model: FederatedModel, storage: Path, files: list[str]) -> None:
    stranger = as_client(make_client())

    for data in (weights(), {"w": "x"}):
        answer = stranger.post(UPDATES, {"federated_model": model.pk, "data": data})
        assert (answer.status_code, answer.json()["code"]) == (403, "not_registered")
        assert "register_client" in answer.json()["detail"]
    require_nothing_left(storage, files, model)


@pytest.mark.parametrize("unknown", [10**6, 0, -1, "x", None, 2**63, 2**70, 1.5])
def test_an_unknown_model(
    device: APIClient, model: FederatedModel, storage: Path, files: list[str], unknown: Any
) -> None:
    answer = device.post(UPDATES, {"federated_model": unknown, "data": weights()})

    assert answer.status_code == 400
    assert answer.json()["federated_model"]
    require_nothing_left(storage, files, model)


def test_a_body_of_another_type_is_415(device: APIClient, model: FederatedModel) -> None:
    for content_type in ("application/octet-stream", "application/x-www-form-urlencoded", "text/plain", "x"):
        answer = device.generic("POST", UPDATES, b"a=1", content_type)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_an_empty_body_of_bytes_is_refused(device: APIClient, model: FederatedModel) -> None:
    answer = device.generic("POST", f"{UPDATES}?federated_model={model.pk}", b"", SAFETENSORS)

    assert (answer.status_code, answer.json()["code"]) == (400, "truncated_body")
    assert answer.json()["data"]


def test_a_bad_update_does_not_stand_in_the_way_of_a_good_one(
    device: APIClient, model: FederatedModel, ann: Registration
) -> None:
    device.post(UPDATES, {"federated_model": model.pk, "data": {"w": [1]}})

    assert make_aggregate(model, ann.client).pk


@pytest.mark.parametrize(
    "metrics",
    [{"n": 10**30}, {"n": json.loads("[" * 100 + "]" * 100)}, json.loads('{"a":' * 400 + "1" + "}" * 400)],
    ids=["big integer", "deep list", "deep object"],
)
def test_metrics_that_could_not_be_given_back_are_400(
    device: APIClient, owner: APIClient, model: FederatedModel, metrics: Any
) -> None:
    in_json = device.post(
        f"{API}model_updates/", {"federated_model": model.pk, "data": [1.0], "metrics": metrics}
    )
    in_query = device.post(
        f"{API}model_updates/?{urlencode({'federated_model': model.pk, 'metrics': json.dumps(metrics)})}",
        data=encode({"w": np.ones(1)}),
        content_type=SAFETENSORS,
    )

    assert (in_json.status_code, in_query.status_code) == (400, 400), in_query.content
    assert owner.get(f"{API}model_updates/").json() == []


def test_an_empty_array_is_no_way_to_a_huge_answer(device: APIClient, model: FederatedModel) -> None:
    header = json.dumps(
        {
            "e": {"dtype": "F32", "shape": [2**24, 0], "data_offsets": [0, 0]},
            "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        }
    ).encode()
    answer = device.post(
        f"{API}model_updates/?federated_model={model.pk}",
        data=len(header).to_bytes(8, "little") + header + b"\0\0\0\0",
        content_type=SAFETENSORS,
    )

    assert 400 <= answer.status_code < 500
    assert "empty" in answer.json()["detail"]


def test_nan_in_json_is_named(device: APIClient, model: FederatedModel) -> None:
    answer = device.post(
        f"{API}model_updates/",
        data=b'{"federated_model": %d, "data": [1.0, NaN]}' % model.pk,
        content_type="application/json",
    )

    assert answer.status_code == 400
    assert "NaN is not JSON" in answer.json()["detail"]


NESTED = ("[" * 1000 + "]" * 1000, '{"a":' * 1000 + "1" + "}" * 1000, "[" * 251 + "]" * 251)


@pytest.mark.parametrize("nested", NESTED, ids=["lists", "objects", "a level too many"])
@pytest.mark.parametrize("member", ["federated_model", "num_examples", "base_aggregate", "metrics", "data"])
def test_json_that_is_nested_too_deep_is_400_wherever_it_is(
    device: APIClient, model: FederatedModel, member: str, nested: str
) -> None:
    members = {"federated_model": str(model.pk), "data": "[1.0]", member: nested}
    body = ",".join(f'"{name}": {value}' for name, value in members.items())

    answer = device.generic("POST", f"{API}model_updates/", f"{{{body}}}".encode(), "application/json")

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json"), answer.content


@pytest.mark.parametrize(
    "schema", [5, {"$schema": {}}, {"$schema": 5}, json.loads('{"items":' * 240 + "{}" + "}" * 240)], ids=str
)
def test_what_is_no_json_schema_is_400(owner: APIClient, schema: Any) -> None:
    answer = owner.post(f"{API}models/", {"name": "m", "aggregator": "mean", "update_schema": schema})

    assert answer.status_code == 400
    assert answer.json()["update_schema"]
