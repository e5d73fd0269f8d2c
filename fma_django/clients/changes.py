"""Changes of a client by operators: its name, tags and organisation, whether it is let in, and its key."""

from collections.abc import Mapping
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import transaction

from fma_django.accounts.grants import may
from fma_django.accounts.roles import CHANGE_CLIENT
from fma_django.clients.keys import SentKey, put_key
from fma_django.clients.labels import organisation_named, tags_named
from fma_django.clients.registration import approve_client, describe_client, revoke_client
from fma_django.errors import InvalidValue, NotPermitted
from fma_django.models import Client, Organisation
from fma_django.rounds.advance import advance
from fma_django.rounds.rows import find_open_round
from fma_django.rounds.waiting_updates import drop_updates_of_former_keys

log = structlog.get_logger(__name__)


def change_client(client: Client, changes: Mapping[str, Any], *, by: User | None) -> Client:
    """Change `name`, `tags` (a list of words), `organisation` (a name or None) and `is_active` of a client.

    Tags that nobody has used before are made; an organisation must be there. `is_active` approves a client that waits
    for it, or refuses it. A client that is revoked stays so: its credential may be in strange hands.
    by: who asks; None is the operator at the command line. With a role in an organisation, a user changes its clients,
    and moves them to another one only where the user may change clients, too.
    Raises InvalidValue, NotPermitted.
    """
    _require(by, client.organisation)
    if changes.get("is_active") and not (client.is_active or client.awaits_approval):
        raise InvalidValue("a revoked client stays revoked; register a new one", field="is_active")
    organisation = client.organisation
    if "organisation" in changes:
        organisation = organisation_named(changes["organisation"])
        _require(by, organisation)
    with transaction.atomic():
        describe_client(
            client,
            name=changes.get("name", client.name),
            organisation=organisation,
            tags=tags_named(changes["tags"]) if "tags" in changes else client.tags.all(),
        )
    # Beside the rest, since it takes the rows of rounds in an order of its own.
    if changes.get("is_active") and client.awaits_approval:
        approve_client(client)
    elif changes.get("is_active") is False and (client.is_active or client.awaits_approval):
        revoke_client(client)
    client.refresh_from_db(fields=["is_active", "awaits_approval"])
    return client


def replace_key(client: Client, key: SentKey, *, by: User | None) -> None:
    """Put another key in the place of the client's, whose certificate goes with it.

    What the former key has signed no longer counts in open rounds: it may be in strange hands.

    key: of the client's request file, so that nobody who has only its credential takes part in this.
    by: who replaces it; None is the operator at the command line.
    Raises NotPermitted, and as `put_key`.
    """
    _require(by, client.organisation)
    before = client.fingerprint
    with transaction.atomic():
        # The rounds first: an update locks its round and then its client, whose unique key changes here.
        models = client.federated_models.order_by("pk")
        open_rounds = [held for held in map(find_open_round, models) if held is not None]
        put_key(client, key)
        for collecting in open_rounds:
            drop_updates_of_former_keys(collecting)
            advance(collecting)
    log.warning(
        "client_key_replaced",
        client=str(client.pk),
        by="the command line" if by is None else by.get_username(),
        before=before,
        fingerprint=client.fingerprint,
    )


def _require(by: User | None, organisation: Organisation | None) -> None:
    if by is not None and not may(by, CHANGE_CLIENT, organisation):
        raise NotPermitted(f"this needs the permission {CHANGE_CLIENT}", permission=CHANGE_CLIENT)
