"""Clients as those see them who own models that they train, and what they reported."""

from collections.abc import Collection
from typing import Any

from django.db.models import Prefetch, Q, QuerySet

from fma_django.models import Client, ClientError, ClientTelemetry, FederatedModel
from fma_django.record.queries.visible import Caller, visible_to


def clients_of(caller: Caller) -> QuerySet[Client]:
    """Those of the caller's models, without their credentials; `federated_models` are the caller's own."""
    own = visible_to(caller, FederatedModel.objects.only("pk").order_by("pk"))
    found = Client.objects.all()
    if not getattr(caller, "is_staff", False):
        # Not joined: a client of two models would come twice.
        registered = FederatedModel.clients.through.objects.filter(federatedmodel__in=own.order_by())
        found = found.filter(pk__in=registered.values("client"))
    return (
        found.defer("credential_hash")
        .select_related("organisation", "latest_telemetry")
        .prefetch_related("tags", Prefetch("federated_models", own))
    )


def telemetry_of(client: Client) -> QuerySet[ClientTelemetry]:
    return ClientTelemetry.objects.filter(client=client).order_by("-id")


def errors_of(caller: Caller, clients: Collection[Any] | QuerySet[Client]) -> QuerySet[ClientError]:
    """What went wrong on these clients; of models, what concerns the caller's own."""
    own = visible_to(caller, FederatedModel.objects.order_by())
    return ClientError.objects.filter(
        Q(federated_model__isnull=True) | Q(federated_model__in=own), client__in=clients
    ).order_by("-id")
