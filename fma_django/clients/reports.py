"""Reports of clients on themselves: telemetry and errors. Kept for FMA_TELEMETRY_DAYS."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import models, transaction
from django.utils import timezone

from fma_django import conf
from fma_django.errors import InvalidValue, NotRegistered
from fma_django.models import Client, ClientError, ClientTelemetry, FederatedModel
from fma_django.record.idempotency import Once, create_once
from fma_django.record.json_values import require_storable

AT_A_TIME = 5000  # deleted in one transaction, so that nobody waits for long


def receive_telemetry(client: Client, facts: Mapping[str, Any]) -> ClientTelemetry:
    """Keep a report, the client's newest from now on. facts: by the columns of ClientTelemetry."""
    with transaction.atomic():
        report = ClientTelemetry.objects.create(client=client, **facts)
        Client.objects.filter(pk=client.pk).update(latest_telemetry=report, last_seen_on=report.created_on)
    return report


def receive_error(
    client: Client,
    code: str,
    *,
    federated_model: FederatedModel | None = None,
    round_number: int | None = None,
    message: str = "",
    traceback: str = "",
    once: Once | None = None,
) -> ClientError:
    """Keep what went wrong on a client. Raises NotRegistered, InvalidValue."""
    for field, value in (("message", message), ("traceback", traceback)):
        require_storable(value, field=field)
    if round_number is not None and federated_model is None:
        raise InvalidValue("belongs to a model: name it too", field="round")
    if federated_model is not None and not federated_model.clients.filter(pk=client.pk).exists():
        raise NotRegistered.of(federated_model.pk)

    def create() -> ClientError:
        error = ClientError.objects.create(
            client=client,
            federated_model=federated_model,
            round_number=round_number,
            code=code,
            message=message,
            traceback=traceback,
        )
        Client.objects.filter(pk=client.pk).update(last_seen_on=error.created_on)
        return error

    return create_once(once, ClientError, create)


def forget_old_reports() -> int:
    """Remove what is older than FMA_TELEMETRY_DAYS; the number removed."""
    cutoff = timezone.now() - timedelta(days=conf.current().telemetry_days)
    return _forget(ClientTelemetry, cutoff) + _forget(ClientError, cutoff)


def _forget(kind: type[models.Model], cutoff: datetime) -> int:
    old = kind._default_manager.filter(created_on__lt=cutoff).order_by("pk")
    removed = 0
    while chosen := list(old.values_list("pk", flat=True)[:AT_A_TIME]):
        kind._default_manager.filter(pk__in=chosen).delete()
        removed += len(chosen)
    return removed
