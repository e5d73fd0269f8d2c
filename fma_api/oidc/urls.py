"""The routes, below /admin/login/. Without FMA_OIDC_ISSUER they are not there, and the extra `oidc` is not loaded."""

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import path


def _login(request: HttpRequest) -> HttpResponseBase:
    _require_issuer()
    from fma_api.oidc.views import to_provider

    return to_provider(request)


def _callback(request: HttpRequest) -> HttpResponseBase:
    _require_issuer()
    from fma_api.oidc.views import from_provider

    return from_provider(request)


def _require_issuer() -> None:
    if not settings.FMA_OIDC_ISSUER:
        raise Http404


urlpatterns = [
    path("oidc/", _login, name="oidc_login"),
    path("oidc/callback/", _callback, name="oidc_callback"),
]
