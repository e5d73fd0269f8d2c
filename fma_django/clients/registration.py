"""Clients: making them, and registering them with a model."""

import hashlib
import hmac
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from fma_django import conf
from fma_django.clients.credentials import use_next_credential
from fma_django.clients.enrolment_jwt import Identity, verified
from fma_django.clients.labels import organisation_named, tags_named
from fma_django.errors import (
    IdempotencyKeyExpired,
    InvalidEnrolmentJwt,
    RegistrationClosed,
    UnknownClient,
    WrongEnrolmentToken,
)
from fma_django.models import Client, FederatedModel, Organisation, Tag
from fma_django.models.client import hash_credential
from fma_django.record.idempotency import KEPT_FOR
from fma_django.rounds.advance import advance
from fma_django.rounds.cohorts import forget_clients_that_left
from fma_django.rounds.rows import find_open_round, read_open_round
from fma_django.rounds.waiting_updates import drop_updates_that_no_longer_count


@dataclass(frozen=True)
class Registration:
    """credential: the secret uuid, to be shown once; never stored, never logged."""

    client: Client
    credential: uuid.UUID


def create_client() -> tuple[Client, uuid.UUID]:
    """A new client and its credential, which is not kept and cannot be shown again."""
    credential = uuid.uuid4()
    return Client.objects.create(credential_hash=hash_credential(credential)), credential


def find_client(credential: str) -> Client:
    """The active client with this credential.

    Raises UnknownClient, with one message for a credential that is malformed, unknown or revoked, so that an answer
    tells a guesser nothing.
    """
    credential_hash = hash_of(credential)
    not_superseded = Q(superseded_on=None) | Q(superseded_on__gt=timezone.now())
    active = Client.objects.filter(is_active=True)
    known = active.filter(not_superseded, credential_hash=credential_hash)
    client = known.first()
    if client is None:
        # Looked for again in any case: another request may have used it first meanwhile.
        use_next_credential(credential_hash)
        client = known.first()
    if client is None:
        raise UnknownClient.of_credential()
    return client


def hash_of(credential: str) -> str:
    """The hash of this credential, which is all that is kept of it. Raises UnknownClient for a malformed one."""
    try:
        return hash_credential(uuid.UUID(credential))
    except ValueError:
        raise UnknownClient.of_credential() from None


def register_client(
    federated_model: FederatedModel,
    *,
    credential: str | None = None,
    enrolment_token: str | None = None,
    enrolment_jwt: str | None = None,
    idempotency_key: str | None = None,
) -> Registration:
    """Make the caller a client of the model: a new client without a credential, the same one with it.

    idempotency_key: the same key gives the same credential again for a day, so that an answer that got lost does not
    leave a client behind that nobody can use. The credential is derived from the key and the server's secret, so
    nothing secret is stored for this. A client with a JWT gets the credential of its subject, in the same way.

    Raises UnknownClient, RegistrationClosed, WrongEnrolmentToken, InvalidEnrolmentJwt, KeysUnavailable,
    IdempotencyKeyExpired, and InvalidValue for an organisation or tags of a JWT that cannot be.
    """
    known = find_client(credential) if credential is not None else None
    if known is None or not known.federated_models.filter(pk=federated_model.pk).exists():
        identity = _require_enrolment(enrolment_token, enrolment_jwt)
    else:
        identity = None
    with transaction.atomic():
        if known is not None and credential is not None:
            registration = Registration(known, uuid.UUID(credential))
        elif identity is not None:
            registration = _client_of(identity)
        elif idempotency_key is not None:
            registration = _derive_client(federated_model, idempotency_key)
        else:
            registration = Registration(*create_client())
        federated_model.clients.add(registration.client)
        Client.objects.filter(pk=registration.client.pk).update(last_seen_on=timezone.now())
        _start_if_it_waited(federated_model)
    return registration


def describe_client(
    client: Client, *, name: str, organisation: Organisation | None, tags: Iterable[Tag]
) -> None:
    """Set the description of a client by operators. Rounds that waited for such a client may start."""
    with transaction.atomic():
        Client.objects.filter(pk=client.pk).update(name=name, organisation=organisation)
        client.tags.set(tags)
        for federated_model in client.federated_models.order_by("pk"):
            _start_if_it_waited(federated_model)
    client.refresh_from_db()


def revoke_client(client: Client) -> None:
    """Refuse the client everywhere from now on. What it sent to open rounds no longer counts; rounds that waited only
    for it may close."""
    with transaction.atomic():
        Client.objects.filter(pk=client.pk).update(is_active=False)
        for federated_model in client.federated_models.order_by("pk"):
            collecting = find_open_round(federated_model)
            if collecting is not None:
                drop_updates_that_no_longer_count(federated_model, collecting)
                forget_clients_that_left(collecting)
                advance(collecting)


def _start_if_it_waited(federated_model: FederatedModel) -> None:
    # Looked at without a lock first: nearly always the round runs, and many clients register at once.
    collecting = read_open_round(federated_model)
    if collecting is None or collecting.started_on is not None:
        return
    collecting = find_open_round(federated_model)
    if collecting is not None:
        advance(collecting)


def _require_enrolment(enrolment_token: str | None, enrolment_jwt: str | None) -> Identity | None:
    """The identity of the caller, where the policy asks for one."""
    policy = conf.current().registration
    if policy == "closed":
        raise RegistrationClosed(
            "this server registers no clients by itself; ask its operator for a credential"
        )
    if policy == "token":
        expected = conf.current().enrolment_token
        if not expected or not hmac.compare_digest((enrolment_token or "").encode(), expected.encode()):
            raise WrongEnrolmentToken(
                "registering here needs the header FMA-Enrolment-Token with the right token"
            )
    return verified(enrolment_jwt) if policy == "jwt" else None


def _client_of(identity: Identity) -> Registration:
    credential = _derived(f"jwt {len(identity.issuer)} {identity.issuer} {identity.subject}")
    client, is_new = Client.objects.get_or_create(
        credential_hash=hash_credential(credential), defaults={"name": identity.subject}
    )
    if not client.is_active:
        raise InvalidEnrolmentJwt("the client of this subject was revoked")
    if is_new:  # later the description is for operators to change
        client.organisation = organisation_named(identity.organisation)
        client.save(update_fields=["organisation"])
        client.tags.set(tags_named(identity.tags))
    return Registration(client, credential)


def _derived(purpose: str) -> uuid.UUID:
    """A credential that only this server can compute again."""
    digest = hmac.new(settings.SECRET_KEY.encode(), purpose.encode(), hashlib.sha256).digest()
    return uuid.UUID(bytes=digest[:16], version=4)


def _derive_client(federated_model: FederatedModel, idempotency_key: str) -> Registration:
    credential = _derived(f"register {federated_model.pk} {idempotency_key}")
    client, is_new = Client.objects.get_or_create(credential_hash=hash_credential(credential))
    # A repeated request gets its answer again; it does not bring back what the owner has taken out since.
    is_registered = is_new or federated_model.clients.filter(pk=client.pk, is_active=True).exists()
    if not is_registered or timezone.now() - client.created_on > KEPT_FOR:
        raise IdempotencyKeyExpired(
            "the client that this Idempotency-Key registered is a day old, or was taken out; use a new key"
        )
    return Registration(client, credential)
