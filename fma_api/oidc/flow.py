"""The authorization code flow with PKCE: allauth's, with a nonce, a signature that is checked, and no other requests.

allauth trusts the connection to the provider and does not check the signature of an ID token that comes by it, takes
the issuer that the provider says, and has no nonce; it adds to the request whatever the address of the login page says.
"""

import base64
import json
from typing import Any
from urllib.parse import quote

from allauth.account.utils import get_next_redirect_url
from allauth.socialaccount.models import SocialApp, SocialLogin, SocialToken
from allauth.socialaccount.providers.oauth2.client import OAuth2Client, OAuth2Error
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.http import HttpRequest
from django.urls import reverse
from django.utils.crypto import constant_time_compare, salted_hmac

from fma_api.oidc import proof
from fma_api.oidc.discovery import Description, discovery_of
from fma_django import outgoing
from fma_django.accounts.sign_on import LONGEST_SUBJECT, Person
from fma_django.clients import jwks
from fma_django.errors import KeysUnavailable

LONGEST_EMAIL = 254  # of Django's
LONGEST_NEXT = 1000  # several logins have room in one cookie


class Client(OAuth2Client):
    """allauth's, whose one request goes by the rules of all requests of the server."""

    def get_redirect_url(self, authorization_url: str, scope: list[str], extra_params: dict[str, Any]) -> str:
        said = {**extra_params, "nonce": nonce_of(self.state)}
        if proof.FRESH in self.request.GET:
            said |= {"prompt": "login", "max_age": "0"}
        parameters: str = super().get_redirect_url("", scope, said)
        # The endpoint may have parameters of its own (RFC 6749, 3.1).
        return authorization_url + (
            parameters.replace("?", "&", 1) if "?" in authorization_url else parameters
        )

    def get_access_token(
        self, code: str, pkce_code_verifier: str | None = None, extra_data: object = None
    ) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.callback_url,
            "code_verifier": pkce_code_verifier or "",
        }
        headers = {}
        if self.basic_auth:
            # Both parts as in a form (RFC 6749, 2.3.1).
            said = f"{quote(self.consumer_key, safe='')}:{quote(self.consumer_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(said.encode()).decode()}"
        else:
            form |= {"client_id": self.consumer_key, "client_secret": self.consumer_secret}
        answer = _json(outgoing.fetch, self.access_token_url, headers=headers, form=form)
        if not isinstance(answer.get("access_token"), str):
            raise OAuth2Error("the provider answered without an access token")
        return answer


class Flow(OpenIDConnectOAuth2Adapter):
    """One login at the provider."""

    client_class = Client

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request, settings.FMA_OIDC_ISSUER)

    @property
    def description(self) -> Description:
        return discovery_of(settings.FMA_OIDC_ISSUER).description()

    @property
    def access_token_url(self) -> str:
        return self.description.token_endpoint

    @property
    def authorize_url(self) -> str:
        return self.description.authorization_endpoint

    @property
    def basic_auth(self) -> bool:
        return not self.description.takes_secret_in_form

    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:
        return request.build_absolute_uri(reverse("oidc_callback"))

    def parse_token(self, data: dict[str, Any]) -> SocialToken:
        return SocialToken(token="")  # none is kept

    def complete_login(
        self, request: HttpRequest, app: SocialApp, token: SocialToken, **kwargs: Any
    ) -> SocialLogin:
        """Raises OAuth2Error unless the provider says, for this very login, who came."""
        answer = kwargs["response"]
        claims = self._claims_of(str(answer.get("id_token") or ""))
        login: SocialLogin = self.get_provider().sociallogin_from_response(request, {"sub": claims["sub"]})
        login.auth_time = claims.get("auth_time")
        login.person = person_of(claims, self._userinfo(answer, claims))
        return login

    def _claims_of(self, id_token: str) -> dict[str, Any]:
        try:
            claims = jwks.signed_claims(
                id_token,
                jwks.of(self.description.jwks_uri),
                issuer=settings.FMA_OIDC_ISSUER,
                audience=settings.FMA_OIDC_CLIENT_ID,
            )
        except (jwks.InvalidJwt, KeysUnavailable) as error:
            raise OAuth2Error(f"the ID token: {error}") from error
        if not constant_time_compare(str(claims.get("nonce")), nonce_of(self.request.GET.get("state", ""))):
            raise OAuth2Error("the ID token has the nonce of another login")
        if claims.get("azp", settings.FMA_OIDC_CLIENT_ID) != settings.FMA_OIDC_CLIENT_ID:
            raise OAuth2Error("the ID token was made for another client (azp)")
        subject = claims["sub"]
        if (
            not isinstance(subject, str)
            or not subject.isprintable()
            or not 0 < len(subject) <= LONGEST_SUBJECT
        ):
            raise OAuth2Error(f"sub must be a text of 1 to {LONGEST_SUBJECT} printable characters")
        return claims

    def _userinfo(self, answer: dict[str, Any], claims: dict[str, Any]) -> dict[str, Any]:
        """The claims that the provider adds to the ID token."""
        url = self.description.userinfo_endpoint
        if not url:
            return {}
        headers = {"Authorization": f"Bearer {answer['access_token']}"}
        found = _json(outgoing.fetch, url, headers=headers)
        if found.get("sub") != claims["sub"]:
            raise OAuth2Error("userinfo is about another person than the ID token")
        return found


class Provider(OpenIDConnectProvider):
    """The one provider of the settings."""

    oauth2_adapter_class = Flow

    def get_oauth2_adapter(self, request: HttpRequest) -> Flow:
        return Flow(request)

    def get_redirect_from_request_kwargs(self, request: HttpRequest) -> dict[str, Any]:
        """Where to go afterwards, and nothing else that an address says."""
        next_url = get_next_redirect_url(request)
        return {"process": "login", "next_url": next_url if len(next_url or "") <= LONGEST_NEXT else None}

    def get_default_scope(self) -> list[str]:
        return [*settings.FMA_OIDC_SCOPES]

    def extract_extra_data(self, data: dict[str, Any]) -> dict[str, Any]:
        return {}  # the provider keeps what it knows


def app() -> SocialApp:
    return SocialApp(
        provider=Provider.id,
        provider_id=settings.FMA_OIDC_ISSUER,
        name=settings.FMA_OIDC_NAME,
        client_id=settings.FMA_OIDC_CLIENT_ID,
        secret=settings.FMA_OIDC_CLIENT_SECRET,
        settings={"oauth_pkce_enabled": True, "server_url": settings.FMA_OIDC_ISSUER},
    )


def nonce_of(state: str) -> str:
    """The nonce of a login: nobody else can make it, and the state belongs to one session."""
    return salted_hmac("fma.oidc.nonce", state, algorithm="sha256").hexdigest()


def person_of(claims: dict[str, Any], userinfo: dict[str, Any]) -> Person:
    """Where both say something, the signed ID token counts."""
    said = {**userinfo, **claims}
    # An address and whether it is verified belong together.
    source = claims if "email" in claims else userinfo
    is_verified = source.get("email_verified") in (True, "true")
    return Person(
        issuer=claims["iss"],
        subject=claims["sub"],
        email=_email(source.get("email")) if is_verified else "",
        name=str(said.get("preferred_username") or ""),
        groups=_groups(said),
    )


def _email(value: Any) -> str:
    """The address, or none: a part of one would be somebody else's."""
    if not isinstance(value, str) or len(value) > LONGEST_EMAIL:
        return ""
    try:
        validate_email(value)
    except ValidationError:
        return ""
    return value


def _groups(said: dict[str, Any]) -> frozenset[str]:
    value: Any = said
    for name in settings.FMA_OIDC_ROLES_CLAIM.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    values = value if isinstance(value, list) else [value]
    return frozenset(member for member in values if isinstance(member, str))


def _json(fetch: Any, url: str, **options: Any) -> dict[str, Any]:
    try:
        answer = json.loads(fetch(url, **options))
        json.dumps(answer, ensure_ascii=False).encode()  # a lone surrogate is no text
    except (outgoing.RequestFailed, ValueError, RecursionError) as error:
        raise OAuth2Error(str(error)) from error
    if not isinstance(answer, dict):
        raise OAuth2Error("the provider answered with JSON that is no object")
    return answer
