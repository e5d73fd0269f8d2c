"""The provider's description of itself (OpenID Connect Discovery 1.0), kept for an hour."""

import json
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

from allauth.socialaccount.providers.oauth2.client import OAuth2Error

from fma_django import outgoing

FRESH_S = 3600.0
PAUSE_S = 10.0
"""After a failure nobody asks again for so long: a provider that is away must not take all threads."""
PATIENCE_S = 1.0
"""The longest wait for a description that another thread is reading."""
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True)
class Description:
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    takes_secret_in_form: bool


class Discovery:
    """The description at one issuer, for all threads of a process."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._found: Description | None = None
        self._read_at = self._failed_at = -FRESH_S
        self._lock = Lock()

    def description(self) -> Description:
        """Raises OAuth2Error."""
        if (known := self._known()) is not None:
            return known
        # A provider that is slow must not take all threads either.
        if not self._lock.acquire(timeout=PATIENCE_S):
            raise OAuth2Error("the provider has not answered yet")
        try:
            return self._known() or self._read()
        finally:
            self._lock.release()

    def _known(self) -> Description | None:
        return self._found if time.monotonic() - self._read_at < FRESH_S else None

    def _read(self) -> Description:
        now = time.monotonic()
        if now - self._failed_at < PAUSE_S:
            raise OAuth2Error("the provider could not be read a moment ago")
        try:
            url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
            self._found = _parsed(outgoing.fetch(url), self._issuer)
        except (outgoing.RequestFailed, ValueError, RecursionError) as error:
            self._failed_at = time.monotonic()
            raise OAuth2Error(f"the description of the provider: {error}") from error
        self._read_at = now
        return self._found


_of: dict[str, Discovery] = {}


def discovery_of(issuer: str) -> Discovery:
    return _of.setdefault(issuer, Discovery(issuer))


def _parsed(content: bytes, issuer: str) -> Description:
    said = json.loads(content)
    if not isinstance(said, dict) or said.get("issuer") != issuer:
        found = said.get("issuer") if isinstance(said, dict) else said
        raise ValueError(
            f"its issuer must be {issuer!r}, as FMA_OIDC_ISSUER says; found {str(found)[:200]!r}"
        )
    methods = said.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    if not isinstance(methods, list):
        raise ValueError("token_endpoint_auth_methods_supported must be a list")
    return Description(
        **{name: _address(said, name) for name in ENDPOINTS},
        userinfo_endpoint=_address(said, "userinfo_endpoint") if said.get("userinfo_endpoint") else "",
        takes_secret_in_form="client_secret_post" in methods,
    )


def _address(said: dict[str, Any], name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str) or not value.startswith("https://") or not value.isascii():
        raise ValueError(f"{name} must be an address that starts with https://")
    return value
