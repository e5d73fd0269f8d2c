"""`/healthz` and `/readyz`: each part that is down is named."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone
from rest_framework.test import APIClient

from fma_django.models import Worker
from fma_django.wakeups import probe
from fma_django.work import heartbeat
from fma_django.work.heartbeat import key_fingerprint

pytestmark = pytest.mark.django_db


@pytest.fixture
def worker(db: None) -> Worker:
    return Worker.objects.create(name="here:1", seen_on=timezone.now())


def test_healthz_is_200_as_long_as_the_process_answers(anonymous: APIClient, storage: Path) -> None:
    storage.write_text("not a folder")

    answer = anonymous.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "no-store" in answer.headers["Cache-Control"]


def test_readyz_is_200_with_everything(anonymous: APIClient, worker: Worker) -> None:
    answer = anonymous.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "database": "ok",
        "storage": "ok",
        "worker": "ok",
        "wakeups": "ok",
    }


def test_wake_ups_that_do_not_arrive_are_said_and_do_not_fail_readiness(
    anonymous: APIClient, worker: Worker, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(probe, "WITHIN_S", 0.0)
    monkeypatch.setattr(probe, "_is_deaf", False)
    listener = probe.Probe()
    for _ in range(2):
        listener.wait_s()
        listener.take(["model:7"])

    answer = anonymous.get("/readyz")

    said = answer.json()
    assert (answer.status_code, said["status"], said["wakeups"][:7]) == (200, "ok", "polling")
    assert caplog.text.count("wakeups_not_heard") == 1

    listener.take(["*"])
    assert listener.wait_s() == 0  # the next probe is sent at once after a lost connection
    listener.take([probe.PROBE])
    assert anonymous.get("/readyz").json()["wakeups"] == "ok"


def test_without_a_worker(anonymous: APIClient, worker: Worker) -> None:
    Worker.objects.update(seen_on=timezone.now() - timedelta(seconds=16))

    answer = anonymous.get("/readyz")

    said = answer.json()
    assert (answer.status_code, said["status"], said["database"]) == (503, "unavailable", "ok")
    assert "fma worker" in said["worker"]


def seen_now(*keys: str) -> None:
    for number, key in enumerate(keys):
        fingerprint = key_fingerprint() if key == "ours" else key
        Worker.objects.create(name=f"w:{number}", seen_on=timezone.now(), key_fingerprint=fingerprint)


@pytest.mark.parametrize("keys", [["another"], ["another", "a third"]])
def test_without_a_worker_of_this_secret_key(anonymous: APIClient, keys: list[str]) -> None:
    seen_now(*keys)

    answer = anonymous.get("/readyz")

    said = answer.json()
    assert (answer.status_code, said["status"]) == (503, "unavailable")
    assert said["worker"].startswith("another key: ")
    assert "FMA_SECRET_KEY" in said["worker"]
    Worker.objects.update(seen_on=timezone.now() - timedelta(minutes=1))
    heartbeat.beat()
    assert anonymous.get("/readyz").json()["worker"] == "ok"
    assert settings.SECRET_KEY not in key_fingerprint()


@pytest.mark.parametrize(
    ("keys", "strays"),
    [
        (["another", "ours"], ["w:0"]),
        (["", "another"], ["w:1"]),
        (["ours", "a", "b", "ours"], ["w:1", "w:2"]),
    ],
)
def test_a_stray_worker_of_another_key_is_named_and_takes_no_web_server_out(
    anonymous: APIClient, caplog: Any, keys: list[str], strays: list[str]
) -> None:
    seen_now(*keys)

    answer = anonymous.get("/readyz")

    said = answer.json()
    assert (answer.status_code, said["status"]) == (200, "ok")
    assert said["worker"].startswith(f"another key: {len(strays)} of {len(keys)} worker")
    assert all(name not in said["worker"] for name in strays)  # anybody may ask
    assert "workers_of_another_key" in caplog.text
    assert str(strays) in caplog.text


def test_without_a_store(anonymous: APIClient, worker: Worker, storage: Path) -> None:
    storage.write_text("not a folder")

    answer = anonymous.get("/readyz")

    said = answer.json()
    assert (answer.status_code, said["database"], said["worker"]) == (503, "ok", "ok")
    assert said["storage"] != "ok"
    assert str(storage) not in said["storage"]


def test_without_a_database(anonymous: APIClient, worker: Worker, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise DatabaseError("connection refused")

    monkeypatch.setattr("fma_api.health.connection.cursor", refuse)

    answer = anonymous.get("/readyz")

    said = answer.json()
    assert (answer.status_code, said["storage"]) == (503, "ok")
    assert "not reachable" in said["database"]
    assert said["worker"] != "ok"


def test_before_the_database_is_migrated(anonymous: APIClient, monkeypatch: Any) -> None:
    class Missing:
        def filter(self, **_: Any) -> None:
            raise DatabaseError("no such table")

    monkeypatch.setattr("fma_api.health.Worker.objects", Missing())

    assert "migrated" in anonymous.get("/readyz").json()["worker"]
