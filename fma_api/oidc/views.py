"""The two requests of a login at the provider: to it, and back from it."""

from math import ceil

import structlog
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from rest_framework.exceptions import Throttled

from fma_api.oidc.adapter import refused
from fma_api.oidc.flow import Flow
from fma_api.problems import too_many_logins
from fma_api.v1.limits import Guesses

log = structlog.get_logger(__name__)


@never_cache
@require_safe
def to_provider(request: HttpRequest) -> HttpResponseBase:
    try:
        response: HttpResponseBase = OAuth2LoginView.adapter_view(Flow)(request)
    except OAuth2Error as error:
        return refused(request, "The identity provider cannot be reached now.", reason=str(error)[:300])
    return response


@never_cache
@require_safe
def from_provider(request: HttpRequest) -> HttpResponseBase:
    """Log in whoever comes back; each try that fails counts, since it makes the server ask the provider."""
    guesses = Guesses(request, of="oidc")
    try:
        guesses.count()
    except Throttled as error:
        return too_many_logins(request, seconds=ceil(getattr(error, "wait", None) or 1))
    response: HttpResponseBase = OAuth2CallbackView.adapter_view(Flow)(request)
    if response.status_code == 302:
        guesses.give_back()
    return response
