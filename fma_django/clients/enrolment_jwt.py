"""Enrolment by a signed JWT of the operator's identity provider, with FMA_REGISTRATION=jwt."""

from dataclasses import dataclass
from time import time
from typing import Any

from fma_django import conf
from fma_django.clients import jwks
from fma_django.errors import InvalidEnrolmentJwt

LEEWAY_S = 60
# Whoever reads a JWT on its way can register its subject again, and learns the credential: its `exp` may be years away.
OLDEST_S = 24 * 3600
MOST_CHARACTERS = 8192
LONGEST_SUBJECT = 255
ALGORITHMS = ("RS256", "ES256", "EdDSA")


@dataclass(frozen=True)
class Identity:
    """A client as the identity provider knows it. subject: unique at the issuer; the same one is the same client."""

    issuer: str
    subject: str
    organisation: str | None
    tags: tuple[str, ...]


def verified(token: str | None) -> Identity:
    """The identity that the token proves.

    The algorithm is the one of the provider's key, never the token's own word: none and HMAC are refused, and a public
    key is never taken for a secret.
    Raises InvalidEnrolmentJwt, KeysUnavailable.
    """
    import jwt

    now = conf.current()
    if token is None:
        raise InvalidEnrolmentJwt("registering here needs the header Authorization: Bearer, with a JWT")
    if len(token) > MOST_CHARACTERS:
        raise InvalidEnrolmentJwt(f"a JWT may have {MOST_CHARACTERS} characters")
    try:
        header = jwt.get_unverified_header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise InvalidEnrolmentJwt(f"the JWT must be signed by one of: {', '.join(ALGORITHMS)}")
        claims = _claims(token, jwks.of(now.jwks).find(key_id, algorithm), algorithm)
        if time() - int(claims["iat"]) > OLDEST_S + LEEWAY_S:
            raise InvalidEnrolmentJwt("the JWT was issued more than a day ago; fetch a new one")
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        # PyJWT's sentences name claims and times, and nothing secret. Others come from odd values inside.
        reason = str(error) if isinstance(error, jwt.PyJWTError) else "it is malformed"
        raise InvalidEnrolmentJwt(f"the JWT is refused: {reason}"[:300]) from error
    return Identity(now.jwt_issuer, _subject(claims), *_labels(claims))


def _claims(token: str, keys: list[jwks.Key], algorithm: str) -> dict[str, Any]:
    import jwt

    now = conf.current()
    for number, key in enumerate(keys, 1):
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=now.jwt_audience,
                issuer=now.jwt_issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.InvalidSignatureError:
            if number == len(keys):
                raise
    raise InvalidEnrolmentJwt("the JWT is signed by none of the keys of FMA_JWKS")


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
