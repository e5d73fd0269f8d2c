"""Clients, as the owners of their models see them, and their reports."""

from collections.abc import Collection
from typing import Any

from django.db.models import Prefetch, Q, QuerySet

from fma_django.models import Client, ClientError, ClientTelemetry, FederatedModel
from fma_django.record.queries.visible import Caller, visible_to


def clients_of(caller: Caller) -> QuerySet[Client]:
    """The clients of the caller's models, without their credentials; `federated_models` are the caller's own."""
    own = visible_to(caller, FederatedModel.objects.only("pk").order_by("pk"))
    clients = Client.objects.all()
    if not getattr(caller, "is_staff", False):
        # Not joined: a client of two models would come twice.
        registered = FederatedModel.clients.through.objects.filter(federatedmodel__in=own.order_by())
        clients = clients.filter(pk__in=registered.values("client"))
    return (
        clients.defer("credential_hash")
        .select_related("organisation", "latest_telemetry")
        .prefetch_related("tags", Prefetch("federated_models", own))
    )


def telemetry_of(client: Client) -> QuerySet[ClientTelemetry]:
    return ClientTelemetry.objects.filter(client=client).order_by("-id")


def errors_of(caller: Caller, clients: Collection[Any] | QuerySet[Client]) -> QuerySet[ClientError]:
    """The errors of these clients, without those about models that are not the caller's."""
    own = visible_to(caller, FederatedModel.objects.order_by())
    return ClientError.objects.filter(
        Q(federated_model__isnull=True) | Q(federated_model__in=own), client__in=clients
    ).order_by("-id")
