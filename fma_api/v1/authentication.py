"""Authentication of the caller: a client by its credential, a user by a token, a password or a session."""

from typing import Any

from django.contrib.auth.models import User
from drf_spectacular import authentication as authentication_schemes
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from fma_api.v1.limits import Guesses, checking_a_password
from fma_django.clients import tokens as api_tokens
from fma_django.clients.registration import find_client
from fma_django.errors import UnknownClient
from fma_django.models import Client

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
    """`Authorization: Token <key>`, compared by its hash: the key is not in the database."""

    def authenticate_credentials(self, key: str) -> tuple[User, None]:
        user = api_tokens.find_user(key)
        if user is None:
            raise AuthenticationFailed("the token is not one of an active user")
        return user, None


class BasicAuthentication(authentication.BasicAuthentication):
    """DRF's, with a limit for guesses, and without NUL characters, which PostgreSQL cannot look for."""

    def authenticate_credentials(
        self, userid: str, password: str, request: Request | None = None
    ) -> tuple[Any, None]:
        if "\x00" in userid:
            raise AuthenticationFailed("Invalid username/password.")
        if request is None:
            return super().authenticate_credentials(userid, password, request)
        guesses = Guesses(request, account=userid)
        guesses.count()
        with checking_a_password():
            found = super().authenticate_credentials(userid, password, request)
        guesses.give_back()
        return found


class BasicScheme(authentication_schemes.BasicScheme):  # type: ignore[no-untyped-call]
    target_class = BasicAuthentication  # type: ignore[assignment]


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
