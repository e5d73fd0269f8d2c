"""Reports of clients on themselves: the listed fields, and nothing else."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from fma_django.clients.registration import Registration
from fma_django.models import Client, ClientError, ClientTelemetry, FederatedModel
from tests.api.callers import API
from tests.records import make_model

pytestmark = pytest.mark.untraced

TELEMETRY = f"{API}clients/me/telemetry/"
ERRORS = f"{API}clients/me/errors/"
SPEED = f"{API}clients/me/speed-test/"
EVERYTHING: dict[str, dict[str, Any]] = {
    "device": {"kind": "server", "machine": "x86_64", "accelerator": "A100-SXM4 (40GB)"},
    "system": {"name": "Linux", "version": "6.8"},
    "resources": {
        "num_cpus": 8,
        "memory_bytes": 2**34,
        "free_memory_bytes": 2**33,
        "free_disk_bytes": 2**40,
        "load": 0.25,
        "battery": 0.5,
        "is_charging": True,
    },
    "connectivity": {
        "is_unmetered": True,
        "ping_ms": 12.5,
        "download_mbps": 94.0,
        "upload_mbps": 40.5,
    },
    "versions": {"client": "0.1.0", "python": "3.11.7", "numpy": "2.5.0", "framework": "torch 2.13.0"},
}


def test_report_is_kept_as_it_was_said(device: APIClient, ann: Registration) -> None:
    answer = device.post(TELEMETRY, EVERYTHING)

    assert answer.status_code == 201
    stored = answer.json()
    assert {name: stored[name] for name in EVERYTHING} == EVERYTHING
    assert stored["client"] == str(ann.client.pk)


def test_newest_report_is_the_clients_latest_and_says_that_it_was_seen(
    device: APIClient, ann: Registration
) -> None:
    device.post(TELEMETRY, EVERYTHING)
    device.post(TELEMETRY, {"resources": {"battery": 0.25}})

    client = Client.objects.get(pk=ann.client.pk)
    assert client.latest_telemetry is not None
    assert client.latest_telemetry.battery == 0.25
    assert client.last_seen_on == client.latest_telemetry.created_on


def test_everything_may_be_left_out(device: APIClient) -> None:
    assert device.post(TELEMETRY, {}).status_code == 201


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("device", "hostname", "annas-laptop"),
        ("device", "kind", "toaster"),
        ("device", "machine", "/home/anna"),
        ("device", "machine", "anna@example.org"),
        ("device", "accelerator", "x" * 65),
        ("system", "user", "anna"),
        ("system", "version", "latest"),
        ("system", "version", None),
        ("resources", "battery", 1.01),
        ("resources", "battery", "nan"),
        ("resources", "battery", True),
        ("resources", "load", -1),
        ("resources", "load", "1"),
        ("resources", "free_memory_bytes", -1),
        ("resources", "free_memory_bytes", 2**50 + 1),
        ("resources", "num_cpus", 1.5),
        ("resources", "is_charging", "perhaps"),
        ("connectivity", "ip", "192.0.2.7"),
        ("connectivity", "ping_ms", 1e400),
        ("connectivity", "ping_ms", 10**400),
        ("versions", "framework", "torch\n2"),
        ("versions", "client", "0.1.0 of anna"),
    ],
    ids=lambda value: None if isinstance(value, (int, float)) else str(value)[:20],
)
def test_what_is_not_in_the_schema_is_refused(device: APIClient, section: str, name: str, value: Any) -> None:
    body: Any = {section: {name: value}}
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) > 1e300:
        text = f'{{"{section}": {{"{name}": 1{"0" * 400}}}}}'
        answer = device.generic("POST", TELEMETRY, text, "application/json")
    else:
        answer = device.post(TELEMETRY, body)

    assert answer.status_code == 400, answer.content
    assert not ClientTelemetry.objects.exists()


@pytest.mark.parametrize("body", [{"location": {}}, {"device": []}, {"device": "x"}, [], "x", 3])
def test_report_of_another_form_is_refused(device: APIClient, body: Any) -> None:
    assert device.post(TELEMETRY, body).status_code == 400


def test_misspelt_field_is_named_with_what_was_meant(device: APIClient) -> None:
    answer = device.post(TELEMETRY, {"resources": {"batery": 0.5}})

    assert "did you mean 'battery'" in str(answer.json()["resources"])


def test_large_report_is_not_read(device: APIClient) -> None:
    assert device.post(TELEMETRY, {"device": {"machine": "x" * 20_000}}).status_code == 413


def test_client_reports_sixty_times_an_hour(device: APIClient, ann: Registration) -> None:
    for _ in range(60):
        assert device.post(TELEMETRY, {}).status_code == 201

    answer = device.post(TELEMETRY, {})

    assert (answer.status_code, answer.json()["code"]) == (429, "throttled")
    assert 0 < int(answer["Retry-After"]) <= 61
    assert ClientTelemetry.objects.filter(client=ann.client).count() == 60


def test_error_is_kept(device: APIClient, ann: Registration, model: FederatedModel) -> None:
    said = {"code": "out_of_memory", "message": "a batch of 512", "federated_model": model.pk, "round": 3}

    answer = device.post(ERRORS, said)

    assert answer.status_code == 201
    assert {name: answer.json()[name] for name in said} == said
    assert answer.json()["traceback"] == ""
    assert Client.objects.get(pk=ann.client.pk).last_seen_on is not None


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"code": ""},
        {"code": "two words"},
        {"code": "x" * 65},
        {"code": "x", "message": "x" * 2001},
        {"code": "x", "message": "\x00"},
        {"code": "x", "traceback": "x" * 8001},
        {"code": "x", "round": 3},
        {"code": "x", "federated_model": 10**6},
        {"code": "x", "hostname": "annas-laptop"},
    ],
    ids=lambda said: ",".join(said) or "nothing",
)
def test_error_of_another_form_is_refused(device: APIClient, said: Any) -> None:
    assert device.post(ERRORS, said).status_code == 400
    assert not ClientError.objects.exists()


def test_error_in_a_model_of_others_is_refused(device: APIClient) -> None:
    answer = device.post(ERRORS, {"code": "x", "federated_model": make_model().pk})

    assert (answer.status_code, answer.json()["code"]) == (403, "not_registered")


def test_same_error_with_the_same_key_is_kept_once(device: APIClient) -> None:
    first, again = (device.post(ERRORS, {"code": "x"}, headers={"Idempotency-Key": "k"}) for _ in range(2))

    assert first.json() == again.json()
    other = device.post(ERRORS, {"code": "y"}, headers={"Idempotency-Key": "k"})
    assert other.json()["code"] == "idempotency_key_reused"


def test_errors_are_limited_too(device: APIClient) -> None:
    statuses = [device.post(ERRORS, {"code": "x"}).status_code for _ in range(61)]

    assert statuses == [201] * 60 + [429]


def test_report_takes_few_queries(device: APIClient) -> None:
    with CaptureQueriesContext(connection) as captured:
        device.post(TELEMETRY, EVERYTHING)

    assert len([query for query in captured if "SAVEPOINT" not in query["sql"]]) <= 3


@pytest.mark.parametrize("size", [0, 1, 65536, 100_001])
def test_speed_test_sends_as_much_as_it_is_asked(device: APIClient, size: int) -> None:
    answer = device.get(SPEED, {"bytes": size})

    assert answer["Content-Length"] == str(size)
    assert len(b"".join(answer.streaming_content)) == size  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [-1, 4 * 2**20 + 1, "many"])
def test_speed_test_has_bounds(device: APIClient, size: Any) -> None:
    assert device.get(SPEED, {"bytes": size}).status_code == 400


def test_speed_test_takes_bytes_and_forgets_them(device: APIClient) -> None:
    for size in (0, 100_000):
        answer = device.generic("POST", SPEED, b"x" * size, "application/octet-stream")
        assert answer.json() == {"size_bytes": size}
    too_large = device.generic("POST", SPEED, b"x" * (4 * 2**20 + 1), "application/octet-stream")
    assert too_large.status_code == 413


def test_speed_tests_are_limited(device: APIClient) -> None:
    statuses = [device.get(SPEED).status_code for _ in range(121)]

    assert statuses == [200] * 120 + [429]
