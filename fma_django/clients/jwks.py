"""The public keys of the operator's identity provider (FMA_JWKS): a JSON Web Key Set in a file or at an address."""

import json
import time
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import structlog

from fma_core.identity.small_file import read_small_file
from fma_django import outgoing
from fma_django.errors import KeysUnavailable

ALGORITHMS = ("RS256", "ES256", "EdDSA")
LEEWAY_S = 60
MOST_CHARACTERS = 8192
FRESH_S = 3600.0
"""A key that the provider has withdrawn is trusted no longer than that."""
PAUSE_S = 60.0
"""The least time between two readings: an unknown key id must not make the server ask the provider every time."""
LEAST_RSA_BITS = 2048

log = structlog.get_logger(__name__)


class InvalidJwt(ValueError):
    """The token proves nothing. The message says why, without anything secret."""


class UnknownKey(InvalidJwt):
    """No key has the token's id and algorithm."""


@dataclass(frozen=True)
class Key:
    """key: of `cryptography`. algorithm: the one that this key is used with, whatever a token says."""

    id: str | None
    algorithm: str
    key: Any


class KeySet:
    """The keys at one place, for all threads of a process."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._keys: tuple[Key, ...] = ()
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._lock = Lock()

    def find(self, key_id: str | None, algorithm: str) -> list[Key]:
        """The keys of this id and algorithm, read anew when none is known. Raises KeysUnavailable."""
        found = self._find(key_id, algorithm)
        if not found and self._may_try():
            self._read()
            found = self._find(key_id, algorithm)
        if not self._is_fresh():
            raise KeysUnavailable("the keys of FMA_JWKS cannot be read; the log says why")
        return found

    def _find(self, key_id: str | None, algorithm: str) -> list[Key]:
        if not self._is_fresh():
            return []
        return [key for key in self._keys if key.algorithm == algorithm and key_id in (None, key.id)]

    def _is_fresh(self) -> bool:
        return self._read_at is not None and time.monotonic() - self._read_at < FRESH_S

    def _may_try(self) -> bool:
        return self._tried_at is None or time.monotonic() - self._tried_at >= PAUSE_S

    def _read(self) -> None:
        # One thread reads. While there are keys, the others answer by them; before, they wait.
        if not self._lock.acquire(blocking=not self._is_fresh()):
            return
        try:
            if self._may_try():
                self._tried_at = time.monotonic()
                self._keys = parsed(_content(self._place))
                self._read_at = time.monotonic()
        except (OSError, ValueError, RecursionError, outgoing.RequestFailed) as error:
            log.error("jwks_unavailable", reason=str(error))
        finally:
            self._lock.release()


@cache
def of(place: str) -> KeySet:
    return KeySet(place)


def signed_claims(token: str, keys: KeySet, *, issuer: str, audience: str) -> dict[str, Any]:
    """The claims of a JWT that one of the keys has signed, by this issuer, for this audience, and for now.

    The algorithm is the one of the provider's key, never the token's own word: none and HMAC are refused, and a public
    key is never taken for a secret.
    Raises InvalidJwt, KeysUnavailable.
    """
    import jwt

    if len(token) > MOST_CHARACTERS:
        raise InvalidJwt(f"a JWT may have {MOST_CHARACTERS} characters")
    try:
        header = jwt.get_unverified_header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise InvalidJwt(f"the JWT must be signed by one of: {', '.join(ALGORITHMS)}")
        claims = _decoded(token, keys.find(key_id, algorithm), algorithm, issuer=issuer, audience=audience)
        json.dumps(
            claims, ensure_ascii=False
        ).encode()  # a lone surrogate is no text, and no database keeps it
        return claims
    except InvalidJwt:
        raise
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        # PyJWT's sentences name claims and times, and nothing secret. Others come from odd values inside.
        reason = str(error) if isinstance(error, jwt.PyJWTError) else "it is malformed"
        raise InvalidJwt(f"the JWT is refused: {reason}"[:300]) from error


def _decoded(token: str, keys: list[Key], algorithm: str, *, issuer: str, audience: str) -> dict[str, Any]:
    import jwt

    for number, key in enumerate(keys, 1):
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=audience,
                issuer=issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.InvalidSignatureError:
            if number == len(keys):
                raise
    raise UnknownKey("the JWT is signed by none of the keys of the provider")


def _content(place: str) -> bytes:
    return (
        outgoing.fetch(place)
        if place.startswith("https://")
        else read_small_file(place, most_bytes=outgoing.MOST_BYTES)
    )


def parsed(content: bytes) -> tuple[Key, ...]:
    """The keys that may sign enrolments. Raises ValueError when there is none."""
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("a JSON Web Key Set is an object with the list `keys`")
    keys = tuple(key for entry in entries if isinstance(entry, dict) and (key := _key(entry)) is not None)
    if not keys:
        raise ValueError("no key of the set is one for RS256 (2048 bits or more), ES256 or EdDSA (Ed25519)")
    return keys


def _key(entry: dict[str, Any]) -> Key | None:
    """The key, or None for one of another kind. Symmetric keys are none: what is published can be no secret."""
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    algorithm = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}.get(
        (str(entry.get("kty")), None if entry.get("kty") == "RSA" else str(entry.get("crv")))
    )
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    # A private key in the set is a mistake, and its public half is enough.
    public = {
        name: value for name, value in entry.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")
    }
    try:
        key = PyJWK(public, algorithm).key
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("jwks_key_ignored", kid=str(entry.get("kid"))[:80], reason=str(error)[:200])
        return None
    if algorithm == "RS256" and key.key_size < LEAST_RSA_BITS:
        log.warning("jwks_key_ignored", kid=str(entry.get("kid"))[:80], reason=f"RSA of {key.key_size} bits")
        return None
    key_id = entry.get("kid")
    return Key(key_id if isinstance(key_id, str) else None, algorithm, key)
