"""A client's next credential, which replaces the present one without a gap.

The present credential works until the next one is first used, or for KEPT_FOR, whichever comes first. Looking a client
up by its present credential stays one indexed query; only an unknown one is looked for among the next credentials.
"""

import hashlib
import hmac
import uuid
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from fma_django.errors import UnknownClient
from fma_django.models import Client
from fma_django.models.client import hash_credential
from fma_django.record.idempotency import KEPT_FOR


@dataclass(frozen=True)
class NextCredential:
    """credential: the secret uuid, to be shown once. superseded_on: until when the present one works at the most."""

    credential: uuid.UUID
    superseded_on: datetime


def give_next_credential(client: Client, *, idempotency_key: str | None = None) -> NextCredential:
    """Give the client a next credential, in place of one that it has not used yet.

    idempotency_key: the same key gives the same credential, and changes nothing, until it has been used. It is derived
    from the key, the present credential and the server's secret: nothing secret is stored, and a key that is used again
    later does not bring back an old credential.
    Raises UnknownClient for a client that has been revoked.
    """
    with transaction.atomic():
        locked = Client.objects.select_for_update(no_key=True).filter(pk=client.pk, is_active=True).first()
        if locked is None:
            raise UnknownClient.of_credential()
        credential = uuid.uuid4() if idempotency_key is None else _derive(locked, idempotency_key)
        credential_hash = hash_credential(credential)
        superseded_on = timezone.now() + KEPT_FOR
        if locked.next_credential_hash == credential_hash and locked.superseded_on is not None:
            superseded_on = locked.superseded_on
        else:
            Client.objects.filter(pk=client.pk).update(
                next_credential_hash=credential_hash, superseded_on=superseded_on
            )
    return NextCredential(credential, superseded_on)


def use_next_credential(credential_hash: str) -> None:
    """Put the next credential of an active client, if it is one, in the place of the present one."""
    Client.objects.filter(next_credential_hash=credential_hash, is_active=True).update(
        credential_hash=F("next_credential_hash"), next_credential_hash=None, superseded_on=None
    )


def _derive(client: Client, idempotency_key: str) -> uuid.UUID:
    message = f"rotate {client.pk} {client.credential_hash} {idempotency_key}".encode()
    digest = hmac.new(settings.SECRET_KEY.encode(), message, hashlib.sha256).digest()
    return uuid.UUID(bytes=digest[:16], version=4)
