"""Authentication of the caller: a client by its credential, a user by a token, a password or a session."""

from typing import Any, cast

from django.contrib.auth.models import User
from django.http import HttpRequest
from drf_spectacular import authentication as authentication_schemes
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from fma_api.v1.accounts.codes import lacks_second_factor, require_no_code, require_password_login
from fma_api.v1.limits import Guesses
from fma_django.accounts.grants import narrow_to_model
from fma_django.accounts.tokens import SCOPES, find_token
from fma_django.clients.registration import find_client
from fma_django.errors import NotPermitted, PasswordLoginOff, SecondFactorRequired, UnknownClient
from fma_django.models import ApiToken, Client
from fma_django.models.api_token import TokenScope

HEADER = "CLIENT-UUID"
CHALLENGE = f'{HEADER}, Basic realm="fma", Token'
"""The ways to say who is calling, as a 401 lists them (WWW-Authenticate)."""


def bearer_of(request: Request) -> str | None:
    """The token of `Authorization: Bearer`, which registering alone reads."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class ClientAuthentication(BaseAuthentication):
    """`CLIENT-UUID: <uuid>`, the uuid that registering answered. Makes the client the request's user."""

    def authenticate(self, request: Request) -> tuple[Client, None] | None:
        credential = request.headers.get(HEADER)
        if credential is None:
            return None
        try:
            return find_client(credential), None
        except UnknownClient as error:
            raise AuthenticationFailed(error.message, code=error.code) from error

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE


class TokenAuthentication(authentication.TokenAuthentication):
    """`Authorization: Token <key>`, compared by its hash: the key is not in the database.

    Every request that a token makes comes through here, so this is where its scope holds. The token is `request.auth`.
    """

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        found = cast("tuple[User, ApiToken] | None", super().authenticate(request))
        if found is not None:
            _require_scope(found[1], request._request)
        return found

    def authenticate_credentials(self, key: str) -> tuple[User, ApiToken]:
        token = find_token(key)
        if token is None:
            raise AuthenticationFailed("the token is not one of an active user")
        narrow_to_model(token.user, token.federated_model_id)
        return token.user, token


def _require_scope(token: ApiToken, request: HttpRequest) -> None:
    """Raise NotPermitted for a request that the token does not allow, whatever its user may."""
    view = getattr(request.resolver_match and request.resolver_match.func, "cls", None)
    is_of_accounts = getattr(view, "is_of_accounts", False)
    if is_of_accounts and token.federated_model_id is not None:
        raise NotPermitted(f"the token is for model {token.federated_model_id} alone")
    if request.method in SAFE_METHODS:
        return
    needed = TokenScope.ADMIN if is_of_accounts else TokenScope.WRITE
    if SCOPES.index(token.scope) < SCOPES.index(needed):
        raise NotPermitted(
            f"this needs a token of the scope {needed.value!r}; the scope here is {token.scope!r}"
        )


class BasicAuthentication(authentication.BasicAuthentication):
    """DRF's, with a limit for guesses, and without NUL characters, which PostgreSQL cannot look for."""

    def authenticate_credentials(
        self, userid: str, password: str, request: Request | None = None
    ) -> tuple[Any, None]:
        if "\x00" in userid:
            raise AuthenticationFailed("Invalid username/password.")
        if request is None:
            return super().authenticate_credentials(userid, password, request)
        try:
            require_password_login()
        except PasswordLoginOff as error:
            raise AuthenticationFailed(error.message, code=error.code) from error
        guesses = Guesses(request, account=userid)
        guesses.count()
        with guesses.checked():
            found = super().authenticate_credentials(userid, password, request)
        guesses.give_back()
        try:
            require_no_code(found[0])
        except SecondFactorRequired as error:
            raise AuthenticationFailed(error.message, code=error.code) from error
        return found


class SessionAuthentication(authentication.SessionAuthentication):
    """DRF's, for sessions that may do more than set up a second factor."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        found = cast("tuple[Any, None] | None", super().authenticate(request))
        if found is not None and lacks_second_factor(request._request):
            raise AuthenticationFailed(
                "set up a second factor in the admin first", code=SecondFactorRequired.code
            )
        return found


class BasicScheme(authentication_schemes.BasicScheme):  # type: ignore[no-untyped-call]
    target_class = BasicAuthentication  # type: ignore[assignment]


class SessionScheme(authentication_schemes.SessionScheme):  # type: ignore[no-untyped-call]
    target_class = SessionAuthentication  # type: ignore[assignment]


class ClientScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = ClientAuthentication
    name = "client"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": HEADER,
            "description": "A registered client's credential.",
        }
