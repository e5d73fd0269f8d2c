"""The keys that operators trust organisations to sign their clients' keys with."""

from datetime import datetime

import structlog
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from fma_core.identity.keys import public_key_in
from fma_django.accounts.grants import may
from fma_django.errors import InvalidValue, KeyTaken, NotPermitted
from fma_django.models import Issuer, Organisation

log = structlog.get_logger(__name__)

CHANGE_ORGANISATION = "fma_django.change_organisation"


def add_issuer(
    organisation: Organisation, public_key: str, *, expires_on: datetime | None = None, by: User | None
) -> Issuer:
    """Trust a key of an organisation. by: who adds it; None is the operator at the command line.

    It needs the permission for all organisations: with one of them, somebody could enter another's key, which is then
    taken. To revoke one, that of its organisation is enough.

    Raises NotPermitted, InvalidKey, InvalidValue for a time that is over, KeyTaken.
    """
    _require(by)
    public_key_in(public_key)
    if expires_on is not None and expires_on <= timezone.now():
        raise InvalidValue("an issuer expires in the future", field="expires_on")
    if Issuer.objects.filter(public_key=public_key).exclude(revoked_on=None).exists():
        raise KeyTaken("this key was revoked, for good; make another one for the organisation")
    try:
        with transaction.atomic():
            # What was left of it when its organisation was deleted; clients lose it with the row.
            Issuer.objects.filter(public_key=public_key, organisation=None, revoked_on=None).delete()
            issuer = Issuer.objects.create(
                organisation=organisation, public_key=public_key, expires_on=expires_on
            )
    except IntegrityError:
        raise KeyTaken("this key is an issuer already, of this organisation or of another one") from None
    log.info("issuer_added", organisation=organisation.pk, fingerprint=issuer.fingerprint, by=_name(by))
    return issuer


def revoke_issuer(issuer: Issuer, *, by: User | None) -> None:
    """Let its certificates count for nothing, from now on and for good. Raises NotPermitted."""
    _require(by, issuer.organisation)
    if Issuer.objects.filter(pk=issuer.pk, revoked_on=None).update(revoked_on=timezone.now()):
        log.warning(
            "issuer_revoked",
            organisation=issuer.organisation_id,
            fingerprint=issuer.fingerprint,
            by=_name(by),
        )
    issuer.refresh_from_db(fields=["revoked_on"])


def valid_issuers() -> QuerySet[Issuer]:
    """The issuers whose certificates count now; each has an organisation."""
    not_expired = Q(expires_on=None) | Q(expires_on__gt=timezone.now())
    return Issuer.objects.filter(not_expired, revoked_on=None, organisation__isnull=False)


def _require(by: User | None, organisation: Organisation | None = None) -> None:
    if by is not None and not may(by, CHANGE_ORGANISATION, organisation):
        raise NotPermitted(f"this needs the permission {CHANGE_ORGANISATION}", permission=CHANGE_ORGANISATION)


def _name(by: User | None) -> str:
    return "the command line" if by is None else by.get_username()
