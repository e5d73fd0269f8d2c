"""How allauth logs somebody in here: after all stages, without pages, mails or messages of its own."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from fma_api.oidc import proof
from fma_django.accounts.roles import USE_ADMIN_SITE

BEGUN_AS = "fma_login_begun_as"


class LoginAdapter(DefaultAccountAdapter):
    def pre_login(self, request: HttpRequest, user: User, **hooks: Any) -> HttpResponse | None:
        request.session[BEGUN_AS] = user.get_session_auth_hash()
        at_provider = (hooks.get("signal_kwargs") or {}).get("sociallogin")
        if at_provider is not None:
            proof.note(request, user, at_provider.auth_time)
        response: HttpResponse | None = super().pre_login(request, user, **hooks)
        return response

    def is_safe_url(self, url: str) -> bool:
        """Whether to redirect there: to this very host alone, whichever others the server answers to."""
        request: HttpRequest = context.request
        return url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure())

    def get_login_redirect_url(self, request: HttpRequest) -> str:
        """The admin, or the API's documentation for whoever may not enter that."""
        return reverse("home" if request.user.has_perm(USE_ADMIN_SITE) else "docs")

    def add_message(self, *_: Any, **__: Any) -> None:
        """Say nothing: the page that follows shows what was done."""

    def send_mail(self, *_: Any, **__: Any) -> None:
        """Send nothing: the server has no mail."""


def has_changed(request: HttpRequest, user: User | None) -> bool:
    """Whether the user has a new password, or is no longer active, since the login that waits for a code began."""
    return user is None or not user.is_active or request.session.get(BEGUN_AS) != user.get_session_auth_hash()
