"""How allauth finds the provider and its users here: from the settings and the record, without pages of its own."""

from typing import Any

import structlog
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp, SocialLogin
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from fma_api.oidc.flow import Provider, app
from fma_api.problems import with_code
from fma_django.accounts.sign_on import bind, user_of
from fma_django.errors import NotPermitted

log = structlog.get_logger(__name__)


class SignOnAdapter(DefaultSocialAccountAdapter):
    def list_apps(self, request: HttpRequest, provider: Any = None, client_id: Any = None) -> list[SocialApp]:
        return [app()]

    def get_provider(self, request: HttpRequest, provider: Any, client_id: Any = None) -> Provider:
        return Provider(request, app=app())

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        try:
            user = user_of(sociallogin.person)
        except NotPermitted as error:
            raise ImmediateHttpResponse(refused(request, error.message)) from error
        bind(user, sociallogin.account.provider, sociallogin.account.uid)
        sociallogin.user = user

    def on_authentication_error(self, request: HttpRequest, provider: Any, **said: Any) -> None:
        reason = said.get("exception") or said.get("error")
        sentence = "The login was not completed. Start again; if that does not help, ask your operator."
        raise ImmediateHttpResponse(refused(request, sentence, reason=str(reason)[:300]))


def refused(request: HttpRequest, sentence: str, *, reason: str = "") -> HttpResponse:
    """The page that says why nobody was logged in. reason: for the log alone."""
    log.warning("oidc_login_refused", reason=reason or sentence)
    context = {**admin.site.each_context(request), "title": "Not logged in", "sentence": sentence}
    return with_code(render(request, "fma_api/oidc/refused.html", context, status=403), "oidc_refused")
