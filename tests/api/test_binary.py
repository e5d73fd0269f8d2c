"""Weights as safetensors: sent as a stream, fetched whole, in part, or not at all when the caller has them."""

import hashlib
from base64 import b64encode
from typing import Any

import pytest
from rest_framework.test import APIClient

from fma_core.arrays.codecs.safetensors import decode, encode
from fma_django.clients.registration import Registration
from fma_django.models import FederatedModel, ModelAggregate, ModelUpdate
from tests.api.callers import API, SAFETENSORS, as_client, wait_of
from tests.records import WEIGHTS, arrays, make_aggregate, make_client, make_model, weights

UPDATES = f"{API}model_updates/"
pytestmark = [pytest.mark.django_db, pytest.mark.untraced]


def send(caller: APIClient, model: FederatedModel, body: bytes, query: str = "", **headers: str) -> Any:
    url = f"{UPDATES}?federated_model={model.pk}{query}"
    return caller.generic("POST", url, body, SAFETENSORS, **headers)


def body_of(answer: Any) -> bytes:
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def etag_of(answer: Any) -> str:
    body_of(answer)  # to the end, so that its file is closed
    etag: str = answer.headers["ETag"]
    return etag


@pytest.fixture
def aggregate(model: FederatedModel, ann: Registration) -> ModelAggregate:
    return make_aggregate(model, ann.client, value=2.0)


@pytest.fixture
def url(aggregate: ModelAggregate) -> str:
    return f"{API}models/{aggregate.federated_model_id}/get_latest_model/"


@pytest.fixture
def whole(device: APIClient, url: str) -> bytes:
    return body_of(device.get(url, headers={"accept": SAFETENSORS}))


def test_an_update_in_bytes_takes_its_facts_from_the_query(
    device: APIClient, model: FederatedModel, aggregate: ModelAggregate
) -> None:
    query = f"&base_aggregate={aggregate.pk}&num_examples=412&metrics=%7B%22loss%22%3A0.5%7D"

    answer = send(device, model, encode(arrays(3.0)), query)

    assert answer.status_code == 201, answer.content
    said = answer.json()
    assert (said["base_aggregate"], said["num_examples"], said["metrics"]) == (
        aggregate.pk,
        412,
        {"loss": 0.5},
    )
    assert device.get(said["data"]).json() == weights(3.0)
    fetched = body_of(device.get(said["data"], headers={"accept": SAFETENSORS}))
    assert {name: array.tolist() for name, array in decode(fetched).items()} == weights(3.0)


@pytest.mark.parametrize("metrics", ["%5B%5D", "x", "%7B%22a%22%3ANaN%7D", "%7B%22a%22%3A%22%5Cud800%22%7D"])
def test_metrics_in_the_query_are_checked(device: APIClient, model: FederatedModel, metrics: str) -> None:
    answer = send(device, model, encode(arrays()), f"&metrics={metrics}")

    assert answer.status_code == 400
    assert answer.json()["metrics"]


@pytest.mark.parametrize(
    ("header", "stored"),
    [('{"loss":0.5}', {"loss": 0.5}), ("null", {}), ("{}", {}), ('{"n\xc3\xa4me":null}', {"näme": None})],
)
def test_metrics_may_come_in_a_header(
    device: APIClient, model: FederatedModel, header: str, stored: dict[str, Any]
) -> None:
    answer = send(device, model, encode(arrays()), "&num_examples=412", HTTP_FMA_METRICS=header)

    assert answer.status_code == 201, answer.content
    assert (answer.json()["metrics"], answer.json()["num_examples"]) == (stored, 412)


@pytest.mark.parametrize("header", ["[]", "x", "", '{"a":NaN}', '{"a":"\\ud800"}', "[" * 3000])
def test_metrics_in_the_header_are_checked(device: APIClient, model: FederatedModel, header: str) -> None:
    answer = send(device, model, encode(arrays()), HTTP_FMA_METRICS=header)

    assert answer.status_code == 400
    assert answer.json()["metrics"]


def test_metrics_in_two_places_are_refused(device: APIClient, model: FederatedModel) -> None:
    answer = send(device, model, encode(arrays()), "&metrics=%7B%7D", HTTP_FMA_METRICS="{}")

    assert answer.status_code == 400
    assert "one place is enough" in answer.json()["metrics"][0]


def test_bytes_and_json_of_the_same_weights_are_the_same_update(
    device: APIClient, model: FederatedModel
) -> None:
    first = send(device, model, encode(arrays())).json()
    second = device.post(UPDATES, {"federated_model": model.pk, "data": weights()}).json()

    assert first == second


def digest(body: bytes) -> str:
    return f"sha-256=:{b64encode(hashlib.sha256(body).digest()).decode()}:"


def test_a_right_content_digest_is_taken(device: APIClient, model: FederatedModel) -> None:
    body = encode(arrays())

    for header in (digest(body), f"sha-512=:AAAA:, {digest(body)}", "sha-512=:AAAA:"):
        assert send(device, model, body, HTTP_CONTENT_DIGEST=header).status_code == 201


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (digest(b"something else"), "digest_mismatch"),
        ("sha-256=:AAAA:", "invalid_header"),
        ("sha-256=:====:", "invalid_header"),
        ("sha-256=abc", "invalid_header"),
        ("", "invalid_header"),
    ],
)
def test_a_content_digest_that_is_wrong_is_refused(
    device: APIClient, model: FederatedModel, header: str, code: str
) -> None:
    answer = send(device, model, encode(arrays()), HTTP_CONTENT_DIGEST=header)

    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert not ModelUpdate.objects.exists()


def test_a_content_digest_of_json_is_verified_too(device: APIClient, model: FederatedModel) -> None:
    body = b'{"federated_model": %d, "data": [1.0]}' % model.pk

    wrong = device.generic("POST", UPDATES, body, "application/json", HTTP_CONTENT_DIGEST=digest(b""))
    right = device.generic("POST", UPDATES, body, "application/json", HTTP_CONTENT_DIGEST=digest(body))

    assert (wrong.status_code, wrong.json()["code"]) == (400, "digest_mismatch")
    assert right.status_code == 201


def test_a_body_without_a_length_is_411(device: APIClient, model: FederatedModel) -> None:
    for content_type in (SAFETENSORS, "application/json"):
        answer = device.generic(
            "POST",
            f"{UPDATES}?federated_model={model.pk}",
            b"",
            content_type,
            HTTP_TRANSFER_ENCODING="chunked",
        )
        assert (answer.status_code, answer.json()["code"]) == (411, "length_required")


def test_an_initial_model_in_bytes_becomes_artifact_1_0_0(owner: APIClient, model: FederatedModel) -> None:
    url = f"{API}models/{model.pk}/initial_model/"

    first = owner.generic("POST", url, encode(arrays()), SAFETENSORS)
    second = owner.generic("POST", url, encode(arrays(2.0)), SAFETENSORS)

    assert (first.status_code, first.json()["version"]) == (201, "1.0.0")
    assert (second.status_code, second.json()["code"]) == (409, "model_has_history")
    assert owner.get(f"{API}models/{model.pk}/get_latest_model/").json() == {
        "values": weights(),
        "aggregate": None,
    }


def test_the_newest_model_in_bytes(device: APIClient, url: str, aggregate: ModelAggregate) -> None:
    answer = device.get(url, headers={"accept": SAFETENSORS})

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, SAFETENSORS)
    assert answer.headers["FMA-Aggregate"] == str(aggregate.pk)
    assert answer.headers["ETag"] == f'"{aggregate.sha256}"'
    assert answer.headers["Accept-Ranges"] == "bytes"
    body = body_of(answer)
    assert answer.headers["Content-Length"] == str(len(body)) == str(aggregate.size_bytes)
    assert hashlib.sha256(body).hexdigest() == aggregate.sha256


def test_an_artifact_in_bytes_names_no_aggregate(owner: APIClient, alice: Any) -> None:
    model = make_model(alice, initial_model=WEIGHTS)

    answer = owner.get(f"{API}models/{model.pk}/get_latest_model/", headers={"accept": SAFETENSORS})

    assert (answer.status_code, len(body_of(answer))) == (200, model.current_artifact.size_bytes)
    assert "FMA-Aggregate" not in answer.headers


def test_no_model_in_bytes_is_204(device: APIClient, model: FederatedModel) -> None:
    answer = device.get(f"{API}models/{model.pk}/get_latest_model/", headers={"accept": SAFETENSORS})

    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("accept", [SAFETENSORS, "application/json"])
@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', "*"])
def test_who_has_the_model_gets_304(device: APIClient, url: str, accept: str, form: str) -> None:
    etag = etag_of(device.get(url, headers={"accept": accept}))

    answer = device.get(url, headers={"accept": accept, "if-none-match": form.format(etag)})

    assert (answer.status_code, body_of(answer)) == (304, b"")
    assert answer.headers["ETag"] == etag


def test_each_form_has_its_own_etag(device: APIClient, url: str) -> None:
    binary = etag_of(device.get(url, headers={"accept": SAFETENSORS}))

    answer = device.get(url, headers={"accept": "application/json", "if-none-match": binary})

    assert answer.status_code == 200
    assert answer.headers["Vary"] == "Accept"


def test_an_aggregate_and_an_artifact_of_the_same_weights_differ_as_json(ann: Registration) -> None:
    model = make_model(initial_model=weights(2.0))
    caller = as_client(make_client(model))
    url = f"{API}models/{model.pk}/get_latest_model/"
    artifact = caller.get(url)

    make_aggregate(model, value=2.0)
    aggregate = caller.get(url, headers={"if-none-match": artifact.headers["ETag"]})

    assert aggregate.status_code == 200
    assert aggregate.json()["aggregate"] is not None


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=8-", 8, None), ("bytes=5-10", 5, 11), ("bytes=-7", -7, None),
     ("bytes=10-99999", 10, None), ("bytes=-99999", 0, None)],
)  # fmt: skip
def test_a_range_answers_206(
    device: APIClient, url: str, whole: bytes, wanted: str, start: int, end: int | None
) -> None:
    answer = device.get(url, headers={"accept": SAFETENSORS, "range": wanted})

    part = whole[start:end]
    assert (answer.status_code, body_of(answer)) == (206, part)
    first = start % len(whole)
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(part) - 1}/{len(whole)}"
    assert answer.headers["Content-Length"] == str(len(part))


@pytest.mark.parametrize("wanted", ["bytes=100000-", "bytes=-0"])
def test_a_range_behind_the_end_is_416(device: APIClient, url: str, whole: bytes, wanted: str) -> None:
    answer = device.get(url, headers={"accept": SAFETENSORS, "range": wanted})

    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{len(whole)}"


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,3-4", "items=0-1", "bytes=-", "bytes=9-3", "bytes", "bytes=" + "9" * 5000 + "-"]
)
def test_what_is_not_one_range_is_answered_whole(
    device: APIClient, url: str, whole: bytes, wanted: str
) -> None:
    answer = device.get(url, headers={"accept": SAFETENSORS, "range": wanted})

    assert (answer.status_code, body_of(answer)) == (200, whole)


def test_if_range_protects_from_parts_of_two_models(
    device: APIClient, url: str, whole: bytes, aggregate: ModelAggregate
) -> None:
    headers = {"accept": SAFETENSORS, "range": "bytes=0-3"}

    same = device.get(url, headers={**headers, "if-range": f'"{aggregate.sha256}"'})
    other = device.get(url, headers={**headers, "if-range": '"another"'})

    assert (same.status_code, body_of(same)) == (206, whole[:4])
    assert (other.status_code, body_of(other)) == (200, whole)


@pytest.mark.parametrize("call", ["get_latest_model", "get_latest_aggregate"])
def test_after_answers_what_is_newer_or_204(device: APIClient, aggregate: ModelAggregate, call: str) -> None:
    url = f"{API}models/{aggregate.federated_model_id}/{call}/"

    newer = device.get(url, {"after": aggregate.pk - 1, "wait": 0.3})
    nothing = device.get(url, {"after": aggregate.pk, "wait": 0.3})

    assert (newer.status_code, wait_of(newer)) == (200, None)
    topics = frozenset({f"model:{aggregate.federated_model_id}"})
    assert (nothing.status_code, wait_of(nothing)) == (204, (topics, 0.3))


@pytest.mark.parametrize("query", [{"after": "x"}, {"after": -1}, {"after": 1, "wait": -1}, {"after": 2**63}])
def test_after_and_wait_are_checked(device: APIClient, url: str, query: Any) -> None:
    assert device.get(url, query).status_code == 400


def test_waiting_is_bounded(device: APIClient, aggregate: Any, url: str, settings: Any) -> None:
    settings.FMA_MAX_WAIT_SECONDS = 0.2

    assert device.get(url, {"after": aggregate.pk, "wait": "1e9"}).seconds == 0.2  # type: ignore[attr-defined]
    assert device.get(url, {"after": aggregate.pk, "wait": "inf"}).status_code == 400


def test_who_asks_for_no_wait_has_none(device: APIClient, aggregate: Any, url: str) -> None:
    assert wait_of(device.get(url, {"after": aggregate.pk})) is None
