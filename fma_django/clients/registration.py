"""Clients: making them, and registering them with a model."""

import hashlib
import hmac
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from fma_django import conf
from fma_django.clients.credentials import use_next_credential
from fma_django.clients.enrolment_jwt import Identity, verified
from fma_django.clients.invitations import use_invitation
from fma_django.clients.keys import SentKey, add_key_at_registration
from fma_django.clients.labels import organisation_named, tags_named
from fma_django.errors import (
    AwaitingApproval,
    IdempotencyKeyExpired,
    InvalidEnrolmentJwt,
    ModelFull,
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

AT_A_TIME = 1000  # removed in one transaction, so that nobody waits for long


@dataclass(frozen=True)
class Registration:
    """credential: the secret uuid, to be shown once; never stored, never logged."""

    client: Client
    credential: uuid.UUID


def create_client(
    *, organisation: Organisation | None = None, awaits_approval: bool = False
) -> tuple[Client, uuid.UUID]:
    """A new client and its credential, which is not kept and cannot be shown again."""
    credential = uuid.uuid4()
    created = Client.objects.create(
        credential_hash=hash_credential(credential),
        organisation=organisation,
        awaits_approval=awaits_approval,
        is_active=not awaits_approval,
    )
    return created, credential


def find_client(credential: str) -> Client:
    """The active client with this credential.

    Raises UnknownClient, with one message for a credential that is malformed, unknown or revoked, so that an answer
    tells a guesser nothing; AwaitingApproval.
    """
    return client_with(hash_of(credential))


def client_with(credential_hash: str) -> Client:
    """The active client whose credential has this hash. Raises as `find_client`."""
    not_superseded = Q(superseded_on=None) | Q(superseded_on__gt=timezone.now())
    known = Client.objects.filter(not_superseded, credential_hash=credential_hash)
    client = known.first()
    if client is None:
        # Looked for again in any case: another request may have used it first meanwhile.
        use_next_credential(credential_hash)
        client = known.first()
    if client is not None and client.awaits_approval:
        raise AwaitingApproval.of_client()
    if client is None or not client.is_active:
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
    invitation: str | None = None,
    organisation: str = "",
    idempotency_key: str | None = None,
    key: SentKey | None = None,
) -> Registration:
    """Make the caller a client of the model: a new client without a credential, the same one with it.

    invitation: its token, which is enough whatever FMA_REGISTRATION says.
    organisation: the name of the one that a client says it belongs to, while it awaits its admin's approval. Otherwise
    it counts for nothing, as does the name of one that is not there: an answer would tell which there are.
    idempotency_key: the same key gives the same credential again for a day, so that an answer that got lost does not
    leave a client behind that nobody can use. The credential is derived from the key and the server's secret, so
    nothing secret is stored for this. A client with a JWT gets the credential of its subject, in the same way.
    key: the client's, with a proof for this idempotency_key.

    Raises UnknownClient, AwaitingApproval, RegistrationClosed, WrongEnrolmentToken, InvalidEnrolmentJwt,
    KeysUnavailable, InvalidInvitation, ModelFull, IdempotencyKeyExpired, InvalidValue for an organisation or tags of a
    JWT that cannot be, and as `add_key_at_registration`.
    """
    known = find_client(credential) if credential is not None else None
    if known is not None and known.federated_models.filter(pk=federated_model.pk).exists():
        if key is not None:
            add_key_at_registration(known, key, idempotency_key)
        federated_model.consents.add(known)
        Client.objects.filter(pk=known.pk).update(last_seen_on=timezone.now())
        return Registration(known, uuid.UUID(credential))
    identity = _require_enrolment(enrolment_token, enrolment_jwt) if invitation is None else None
    claims: dict[str, Any] = {}
    if invitation is None and conf.current().registration == "approval":
        if known is not None and known.invitation_id is not None:
            raise RegistrationClosed(
                "nobody has approved this client: it was invited to other models, and registers with this one by an "
                "invitation to it"
            )
        claimed = Organisation.objects.filter(name=organisation).first() if organisation else None
        claims = {"awaits_approval": True, "organisation": claimed}
    with transaction.atomic():
        is_repeated = False
        if known is not None:
            registration = Registration(known, uuid.UUID(credential))
        elif identity is not None:
            registration = _client_of(identity)
        elif idempotency_key is not None:
            registration, is_repeated = _derive_client(federated_model, idempotency_key, claims)
        else:
            registration = Registration(*create_client(**claims))
        client = registration.client
        if key is not None:
            add_key_at_registration(client, key, idempotency_key)
        if is_repeated:
            return registration
        # A JWT that is sent again gets its answer, also once the model is full.
        needs_room = identity is None or not federated_model.clients.filter(pk=client.pk).exists()
        if invitation is not None:
            use_invitation(invitation, federated_model, client, is_new=known is None)
        federated_model.clients.add(client)
        federated_model.consents.add(client)
        Client.objects.filter(pk=client.pk).update(last_seen_on=timezone.now())
        if client.is_active:
            _start_if_it_waited(federated_model)
        if needs_room:
            _require_room(federated_model)
    return registration


def approve_client(client: Client) -> None:
    """Let in a client that waits for it. Rounds that waited for such a client may start."""
    with transaction.atomic():
        waiting = Client.objects.filter(pk=client.pk, awaits_approval=True)
        if waiting.update(awaits_approval=False, is_active=True):
            for federated_model in client.federated_models.order_by("pk"):
                _start_if_it_waited(federated_model)


def forget_unapproved_clients() -> int:
    """Remove the clients that nobody has approved in FMA_APPROVAL_DAYS; the number removed."""
    cutoff = timezone.now() - timedelta(days=conf.current().approval_days)
    waiting = Client.objects.filter(awaits_approval=True, created_on__lt=cutoff).order_by("pk")
    removed = 0
    while chosen := list(waiting.values_list("pk", flat=True)[:AT_A_TIME]):
        # Unless one was approved meanwhile.
        Client.objects.filter(pk__in=chosen, awaits_approval=True).delete()
        removed += len(chosen)
    return removed


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
    for it may close. One that waited for approval leaves its models: it was never a client of theirs."""
    with transaction.atomic():
        waiting = Client.objects.filter(pk=client.pk, awaits_approval=True)
        if waiting.update(is_active=False, awaits_approval=False):
            client.federated_models.clear()
            client.consented_to.clear()
            return
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
    subject = f"jwt {len(identity.issuer)} {identity.issuer} {identity.subject}"
    credential = _derived(subject)
    client, is_new = Client.objects.get_or_create(
        subject_hash=hashlib.sha256(subject.encode()).hexdigest(),
        defaults={"name": identity.subject, "credential_hash": hash_credential(credential)},
    )
    if not client.is_active:
        raise InvalidEnrolmentJwt("the client of this subject was revoked")
    if client.credential_hash != hash_credential(credential):
        raise InvalidEnrolmentJwt(
            "the client of this subject has rotated its credential; if it lost it, its operator makes another one"
        )
    if is_new:  # later the description is for operators to change
        client.organisation = organisation_named(identity.organisation)
        client.save(update_fields=["organisation"])
        client.tags.set(tags_named(identity.tags))
    return Registration(client, credential)


def _derived(purpose: str) -> uuid.UUID:
    """A credential that only this server can compute again."""
    digest = hmac.new(settings.SECRET_KEY.encode(), purpose.encode(), hashlib.sha256).digest()
    return uuid.UUID(bytes=digest[:16], version=4)


def _require_room(federated_model: FederatedModel) -> None:
    """Raises ModelFull. Call it last in the transaction that registers: locks of rounds come before those of models."""
    most = conf.current().max_clients_per_model
    if not most:
        return
    # Registrations wait for each other here, so that as many as come at once are counted; nothing that only reads the
    # model's key, as each of them has done, waits for this lock.
    FederatedModel.objects.select_for_update(no_key=True).filter(pk=federated_model.pk).first()
    if federated_model.clients.count() > most:
        raise ModelFull(f"model {federated_model.pk} has {most} clients, which is as many as it may have")


def _derive_client(
    federated_model: FederatedModel, idempotency_key: str, claims: Mapping[str, Any]
) -> tuple[Registration, bool]:
    """The client of this key, and whether it was there before."""
    credential = _derived(f"register {federated_model.pk} {idempotency_key}")
    waits = bool(claims.get("awaits_approval"))
    client, is_new = Client.objects.get_or_create(
        credential_hash=hash_credential(credential), defaults={**claims, "is_active": not waits}
    )
    # A repeated request gets its answer again; it does not bring back what the owner has taken out since.
    let_in = Q(is_active=True) | Q(awaits_approval=True)
    is_registered = is_new or federated_model.clients.filter(let_in, pk=client.pk).exists()
    if not is_registered or timezone.now() - client.created_on > KEPT_FOR:
        raise IdempotencyKeyExpired(
            "the client that this Idempotency-Key registered is a day old, or was taken out; use a new key"
        )
    return Registration(client, credential), not is_new
