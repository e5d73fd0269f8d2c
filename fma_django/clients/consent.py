"""The consent of clients to models: a public id alone lets nobody register somebody's client, or send in its name.

A client consents to a model when it registers itself, by an invitation or without; its organisation's admin, or an
operator, consents for it by putting it among the model's clients.
"""

from collections.abc import Iterable
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet

from fma_django.accounts.grants import may, only_model, organisations_where
from fma_django.accounts.roles import CHANGE_CLIENT
from fma_django.errors import NoConsent
from fma_django.models import Client, FederatedModel


def attachable_by(user: User, federated_model: FederatedModel | None = None) -> QuerySet[Client]:
    """The clients that a user may put among those of a model: all for whoever may change all, else those that are
    registered with a model of the user's, and those of organisations whose clients the user may change.

    federated_model: the model itself, whose clients may stay.
    """
    clients = Client.objects.all()
    if (only := only_model(user)) is not None:
        # A token of one model takes no further clients into it: it would see their reports then.
        return clients.filter(federated_models=only)
    if may(user, CHANGE_CLIENT):
        return clients
    known = (
        Q(developer=user.pk) if federated_model is None else Q(developer=user.pk) | Q(pk=federated_model.pk)
    )
    # Not joined: a client of two models would come twice.
    registered = FederatedModel.clients.through.objects.filter(
        federatedmodel__in=FederatedModel.objects.filter(known).order_by()
    )
    return clients.filter(
        Q(pk__in=registered.values("client")) | Q(organisation__in=organisations_where(user, CHANGE_CLIENT))
    )


def set_clients(federated_model: FederatedModel, clients: Iterable[Client], *, by: User | None) -> None:
    """Let these and no others be the clients of a model. Those that `by` adds and may change have consented by that."""
    before = set(federated_model.clients.values_list("pk", flat=True)) if by is not None else set()
    chosen = list(clients)
    federated_model.clients.set(chosen)
    if by is not None:
        added = [client for client in chosen if client.pk not in before and may(by, CHANGE_CLIENT, client)]
        federated_model.consents.add(*added)


def require_consent(federated_model: FederatedModel, client_id: UUID) -> None:
    """Raise NoConsent for a client of the model that has not consented to it."""
    if (
        federated_model.clients.filter(pk=client_id).exists()
        and not federated_model.consents.filter(pk=client_id).exists()
    ):
        raise NoConsent(
            f"client {client_id} has not consented to model {federated_model.pk}; it consents when it registers "
            "itself, or when an admin of its organisation puts it among the model's clients"
        )
