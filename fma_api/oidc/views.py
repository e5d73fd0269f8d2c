"""The two requests of a login at the provider: to it, and back from it."""

from typing import Any

from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from rest_framework.exceptions import Throttled

from fma_api.oidc import begun
from fma_api.oidc.adapter import refused
from fma_api.oidc.flow import Flow
from fma_api.problems import too_many_logins
from fma_api.v1.limits import Guesses


class Callback(OAuth2CallbackView):
    def _get_state(self, request: HttpRequest, provider: Any) -> Any:
        with begun.in_cookie(request):
            return super()._get_state(request, provider)


@never_cache
@require_safe
def to_provider(request: HttpRequest) -> HttpResponseBase:
    """Begin a login, which counts until it is completed: it lets the server ask the provider."""
    try:
        Guesses(request, of="oidc").count()
    except Throttled as error:
        return too_many_logins(request, error)
    try:
        with begun.in_cookie(request):
            response: HttpResponseBase = OAuth2LoginView.adapter_view(Flow)(request)
    except OAuth2Error as error:
        return refused(request, "The identity provider cannot be reached now.", reason=str(error)[:300])
    begun.keep(request, response)
    return response


@never_cache
@require_safe
def from_provider(request: HttpRequest) -> HttpResponseBase:
    """Complete a login that was begun in this browser; allauth looks for its state before it asks the provider."""
    response: HttpResponseBase = Callback.adapter_view(Flow)(request)
    begun.keep(request, response)
    if response.status_code == 302:
        Guesses(request, of="oidc").give_back()
    return response
