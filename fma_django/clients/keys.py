"""The keys of clients: added once, by the client; replaced by an operator; signed by the client's organisation.

A client cannot change its key: who has stolen a credential could do so, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.utils import timezone

from fma_core.errors import InvalidCertificate
from fma_core.identity.certificate import Certificate, certificate_of, require_certificate
from fma_core.identity.keys import fingerprint, public_key_in, signature_in
from fma_core.identity.possession import CLIENT, NO_SERVER, REGISTRATION, REQUEST, require_proof
from fma_django.clients.issuers import valid_issuers
from fma_django.errors import ClientHasKey, InvalidValue, KeyTaken
from fma_django.models import Client, Issuer

VALID = "valid"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SentKey:
    """A public key, the proof that its sender has the private one, and the certificate of an organisation for it.

    servers: the names by which its sender may have called this server.
    """

    public_key: bytes
    proof: bytes
    certificate: Certificate | None = None
    servers: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeptCertificate:
    """A certificate as people see it. issuer: the fingerprint of the key that signed it.

    organisation: the one that the issuer is registered for; None when it is there no longer. label: the
    organisation's word for the client. state: "valid", or the fault.
    """

    issuer: str
    organisation: str | None
    label: str
    not_before: datetime
    not_after: datetime
    state: str


def sent_key(members: Mapping[str, Any], *, servers: tuple[str, ...] = ()) -> SentKey | None:
    """The key in `public_key`, `key_proof` and `certificate`; None without any of them.

    servers: the names by which the caller may have called this server; none for a request file.

    Raises InvalidValue, InvalidKey, InvalidSignature, InvalidCertificate.
    """
    if all(members.get(name) is None for name in ("public_key", "key_proof", "certificate")):
        return None
    for name in ("public_key", "key_proof"):
        if members.get(name) is None:
            raise InvalidValue("a key comes with public_key and key_proof", field=name)
    certificate = members.get("certificate")
    return SentKey(
        public_key_in(members["public_key"]),
        signature_in(members["key_proof"]),
        None if certificate is None else certificate_of(certificate),
        servers,
    )


def add_key_at_registration(client: Client, key: SentKey, idempotency_key: str | None) -> None:
    """Add the key of a client that registers, with a proof for the Idempotency-Key of the registration.

    Raises InvalidValue without an Idempotency-Key, and as `add_key`.
    """
    if idempotency_key is None:
        raise InvalidValue(
            "a registration with a key needs an Idempotency-Key: the proof is made for it", field="key_proof"
        )
    require_proof(key.public_key, key.proof, REGISTRATION, idempotency_key, servers=key.servers)
    _add(client, key)


def add_key(client: Client, key: SentKey) -> None:
    """Add the key of a registered client, with a proof for its public id, and the certificate.

    The same key again changes nothing. Raises InvalidSignature, ClientHasKey for another key than the client has,
    KeyTaken for that of another client, InvalidCertificate.
    """
    require_proof(key.public_key, key.proof, CLIENT, str(client.pk), servers=key.servers)
    _add(client, key)


def put_key(client: Client, key: SentKey) -> None:
    """Put a key in the place of the client's, whose certificate goes with it. The proof is that of a request file.

    Raises InvalidSignature, KeyTaken, InvalidCertificate.
    """
    require_proof(key.public_key, key.proof, REQUEST, "", servers=(NO_SERVER,))
    with transaction.atomic():
        _set_key(client, key.public_key.hex(), only_first=False)
        client.refresh_from_db(fields=["public_key", "key_added_on", "organisation", "certificate", "issuer"])
        if key.certificate is not None:
            _keep_certificate(client, key.certificate)


def kept_certificate(client: Client) -> KeptCertificate | None:
    """The certificate of the client's key as it is now; None without one.

    Reads the client's issuer, and the organisation of that.
    """
    if client.certificate is None:
        return None
    certificate = certificate_of(client.certificate)
    organisation = None if client.issuer is None else client.issuer.organisation
    return KeptCertificate(
        issuer=fingerprint(certificate.issuer),
        organisation=None if organisation is None else organisation.name,
        label=certificate.label,
        not_before=datetime.fromtimestamp(certificate.not_before, UTC),
        not_after=datetime.fromtimestamp(certificate.not_after, UTC),
        state=_state(client, certificate.not_after),
    )


def _add(client: Client, key: SentKey) -> None:
    public_key = key.public_key.hex()
    with transaction.atomic():
        is_new = _set_key(client, public_key, only_first=True)
        client.refresh_from_db(fields=["public_key", "key_added_on", "organisation", "certificate", "issuer"])
        if client.public_key != public_key:
            raise ClientHasKey(
                f"this client has the key {client.fingerprint}, which it cannot change itself; its operator can, by "
                "PUT clients/<id>/key/"
            )
        if key.certificate is not None:
            _keep_certificate(client, key.certificate)
    if is_new:
        log.info("client_key_added", client=str(client.pk), fingerprint=client.fingerprint)


def _set_key(client: Client, public_key: str, *, only_first: bool) -> bool:
    """Whether the key is new to this client. Raises KeyTaken."""
    rows = Client.objects.filter(pk=client.pk)
    rows = rows.filter(public_key=None) if only_first else rows.exclude(public_key=public_key)
    try:
        with transaction.atomic():
            changed = rows.update(
                public_key=public_key, key_added_on=timezone.now(), certificate=None, issuer=None
            )
    except IntegrityError:
        raise KeyTaken(
            f"another client has the key {fingerprint(bytes.fromhex(public_key))}; each has one of its own"
        ) from None
    return bool(changed)


def _keep_certificate(client: Client, certificate: Certificate) -> None:
    """Raises InvalidCertificate."""
    issuers = {bytes.fromhex(row.public_key): row for row in valid_issuers().select_related("organisation")}
    names = {key: row.organisation.name for key, row in issuers.items() if row.organisation is not None}
    is_kept = client.issuer is not None and client.certificate == certificate.to_json()
    if is_kept and client.issuer == issuers.get(certificate.issuer):
        # Clients send theirs at each start, also after their organisation has been renamed here.
        names[certificate.issuer] = certificate.organisation
    now = timezone.now().timestamp()
    require_certificate(certificate, bytes.fromhex(client.public_key or ""), issuers=names, now=now)
    issuer: Issuer = issuers[certificate.issuer]
    if client.organisation_id not in (None, issuer.organisation_id):
        raise InvalidCertificate("the certificate is of another organisation than the client's")
    # An operator may have replaced the key meanwhile.
    with_this_key = Client.objects.filter(pk=client.pk, public_key=certificate.public_key.hex())
    if not with_this_key.update(certificate=certificate.to_json(), issuer=issuer):
        raise InvalidCertificate("the client's key was replaced while its certificate was on its way")
    client.certificate, client.issuer = certificate.to_json(), issuer


def _state(client: Client, not_after: int) -> str:
    now, issuer = timezone.now(), client.issuer
    if issuer is not None and issuer.revoked_on is not None:
        return "issuer revoked"
    if issuer is None or issuer.organisation_id is None:
        return "issuer unknown"
    if issuer.expires_on is not None and issuer.expires_on <= now:
        return "issuer expired"
    if not_after <= now.timestamp():
        return "expired"
    if client.organisation_id not in (None, issuer.organisation_id):
        return "of another organisation"
    return VALID
