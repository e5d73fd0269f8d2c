"""Clients, as the owners of their models see them, and their reports."""

from collections.abc import Collection
from typing import Any

from django.db.models import Prefetch, Q, QuerySet

from fma_django.accounts.grants import may, only_model, organisations_where
from fma_django.models import Client, ClientError, ClientTelemetry, FederatedModel
from fma_django.record.queries.visible import Caller, visible_to

VIEW_CLIENTS = "fma_django.view_client"


def clients_of(caller: Caller) -> QuerySet[Client]:
    """The clients of the caller's models and organisations, without their credentials.

    `federated_models` of each are those that the caller may see, and those for which a client awaits approval.
    """
    own = Q(pk__in=visible_to(caller, FederatedModel.objects.order_by()).values("pk"))
    clients = Client.objects.all()
    if (only := only_model(caller)) is not None:
        clients = clients.filter(federated_models=only)
    if not may(caller, VIEW_CLIENTS):
        # Not joined: a client of two models would come twice.
        whole = visible_to(caller, FederatedModel.objects.order_by(), as_member=False)
        registered = FederatedModel.clients.through.objects.filter(federatedmodel__in=whole)
        shown = Q(pk__in=registered.values("client"))
        if organisations := organisations_where(caller, VIEW_CLIENTS):
            shown |= Q(organisation__in=organisations)
            if only is None:
                waiting = FederatedModel.clients.through.objects.filter(
                    client__organisation__in=organisations, client__awaits_approval=True
                )
                own |= Q(pk__in=waiting.values("federatedmodel"))
        clients = clients.filter(shown)
    return (
        clients.defer("credential_hash")
        .select_related("organisation", "latest_telemetry", "issuer__organisation")
        .prefetch_related(
            "tags", Prefetch("federated_models", FederatedModel.objects.only("pk").filter(own).order_by("pk"))
        )
    )


def telemetry_of(client: Client) -> QuerySet[ClientTelemetry]:
    return ClientTelemetry.objects.filter(client=client).order_by("-id")


def errors_of(caller: Caller, clients: Collection[Any] | QuerySet[Client]) -> QuerySet[ClientError]:
    """The errors of these clients, without those about models that are not the caller's."""
    own = visible_to(caller, FederatedModel.objects.order_by())
    return ClientError.objects.filter(
        Q(federated_model__isnull=True) | Q(federated_model__in=own), client__in=clients
    ).order_by("-id")
