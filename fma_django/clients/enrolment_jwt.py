"""Enrolment by a signed JWT of the operator's identity provider, with FMA_REGISTRATION=jwt."""

from dataclasses import dataclass
from time import time
from typing import Any

from fma_django import conf
from fma_django.clients import jwks
from fma_django.errors import InvalidEnrolmentJwt

# Whoever reads a JWT on its way can register its subject again, and learns the credential: its `exp` may be years away.
OLDEST_S = 24 * 3600
LONGEST_SUBJECT = 255


@dataclass(frozen=True)
class Identity:
    """A client as the identity provider knows it. subject: unique at the issuer; the same one is the same client."""

    issuer: str
    subject: str
    organisation: str | None
    tags: tuple[str, ...]


def verified(token: str | None) -> Identity:
    """The identity that the token proves. Raises InvalidEnrolmentJwt, KeysUnavailable."""
    now = conf.current()
    if token is None:
        raise InvalidEnrolmentJwt("registering here needs the header Authorization: Bearer, with a JWT")
    try:
        claims = jwks.signed_claims(
            token, jwks.of(now.jwks), issuer=now.jwt_issuer, audience=now.jwt_audience
        )
    except jwks.UnknownKey as error:
        raise InvalidEnrolmentJwt("the JWT is signed by none of the keys of FMA_JWKS") from error
    except jwks.InvalidJwt as error:
        raise InvalidEnrolmentJwt(str(error)) from error
    if time() - int(claims["iat"]) > OLDEST_S + jwks.LEEWAY_S:
        raise InvalidEnrolmentJwt("the JWT was issued more than a day ago; fetch a new one")
    return Identity(now.jwt_issuer, _subject(claims), *_labels(claims))


def _subject(claims: dict[str, Any]) -> str:
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject.isprintable() or not 0 < len(subject) <= LONGEST_SUBJECT:
        raise InvalidEnrolmentJwt(f"sub must be a text of 1 to {LONGEST_SUBJECT} printable characters")
    return subject


def _labels(claims: dict[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    now = conf.current()
    organisation = claims.get(now.jwt_organisation_claim)
    tags = claims.get(now.jwt_tags_claim)
    if organisation is not None and not (isinstance(organisation, str) and organisation.isprintable()):
        raise InvalidEnrolmentJwt(f"{now.jwt_organisation_claim} must be the name of an organisation")
    if tags is None:
        tags = []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidEnrolmentJwt(f"{now.jwt_tags_claim} must be a list of tags")
    return organisation, tuple(tags)
