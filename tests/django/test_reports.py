"""How long reports are kept."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from pytest_django import Settings

from fma_django.clients import reports
from fma_django.models import Client, ClientError, ClientTelemetry
from fma_django.work.sweep import sweep_memory
from tests.records import make_client

pytestmark = pytest.mark.django_db


def test_old_reports_are_swept(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.FMA_TELEMETRY_DAYS = 2
    monkeypatch.setattr(reports, "AT_A_TIME", 3)
    client = make_client().client
    for _ in range(7):
        reports.receive_telemetry(client, {})
        reports.receive_error(client, "x")
    for kind in (ClientTelemetry, ClientError):
        kind._default_manager.update(created_on=timezone.now() - timedelta(days=2, minutes=1))
    newest = reports.receive_telemetry(client, {"battery": 0.5})

    sweep_memory()

    assert list(ClientTelemetry.objects.all()) == [newest]
    assert not ClientError.objects.exists()
    assert Client.objects.get(pk=client.pk).latest_telemetry == newest


def test_client_outlives_its_last_report(settings: Settings) -> None:
    client = make_client().client
    reports.receive_telemetry(client, {})
    ClientTelemetry.objects.update(created_on=timezone.now() - timedelta(days=15))

    sweep_memory()

    assert Client.objects.get(pk=client.pk).latest_telemetry is None


@pytest.mark.parametrize(
    "facts", [{"battery": 1.5}, {"ping_ms": -1.0}, {"free_memory_bytes": 2**51}], ids=str
)
def test_database_refuses_what_cannot_be(facts: dict[str, float]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        reports.receive_telemetry(make_client().client, facts)
