"""The routes, below /admin/, under the names by which allauth leads to them."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.urls import path

Page = Callable[..., HttpResponseBase]


def _page(name: str) -> Page:
    """A view of `pages`, which is loaded when it is asked for: it brings fido2, which takes 12 MB and 0.2 s."""

    def view(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        from fma_api.second_factor import pages

        made: Page = getattr(pages, name).as_view()
        return made(request, **kwargs)

    return view


urlpatterns = [
    path("login/code/", _page("AskPage"), name="mfa_authenticate"),
    path("second-factor/", _page("OverviewPage"), name="mfa_index"),
    path("second-factor/on/", _page("TurnOnPage"), name="mfa_activate_totp"),
    path("second-factor/off/", _page("TurnOffPage"), name="mfa_deactivate_totp"),
    path("second-factor/codes/", _page("CodesPage"), name="mfa_view_recovery_codes"),
    path("second-factor/codes/new/", _page("NewCodesPage"), name="mfa_generate_recovery_codes"),
]
