"""The login page of the admin, with the limit for guesses that the API has, and a failure that is one."""

from typing import Any

import structlog
from allauth.account.internal.flows.login import record_authentication
from allauth.account.utils import perform_login
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from rest_framework.exceptions import Throttled

from fma_api.admin_site import LoginForm
from fma_api.problems import too_many_logins, with_code
from fma_api.v1.accounts.codes import lacks_second_factor
from fma_api.v1.limits import Guesses

log = structlog.get_logger(__name__)


class LoginPage(LoginView):
    """The page of Django's admin, from which a login goes on through allauth's stages: the second factor is one."""

    template_name = "fma_api/login.html"
    authentication_form = LoginForm

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return {
            **admin.site.each_context(self.request),
            "title": "Log in",
            "app_path": self.request.get_full_path(),
            "next_url": self.get_redirect_url(),  # "" for an address of another host
            "takes_password": settings.FMA_PASSWORD_LOGIN,
            "provider": settings.FMA_OIDC_NAME if settings.FMA_OIDC_ISSUER else "",
            **super().get_context_data(**kwargs),
        }

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user = form.get_user()
        record_authentication(self.request, user, "password")
        response: HttpResponse = perform_login(self.request, user, redirect_url=self.get_success_url())
        return response


@never_cache
def login(request: HttpRequest) -> HttpResponseBase:
    """Show the page; a wrong password is 403, and 429 beyond FMA_LOGIN_RATE."""
    if request.method != "POST":
        if lacks_second_factor(request):
            return redirect("mfa_index")
        if admin.site.has_permission(request):
            return redirect("admin:index")
        return LoginPage.as_view()(request)
    if not settings.FMA_PASSWORD_LOGIN:
        raise PermissionDenied
    guesses = Guesses(request, account=request.POST.get("username", ""))
    try:
        guesses.count()
        with guesses.checked():
            response = LoginPage.as_view()(request)
    except Throttled as error:
        log.warning("login_refused", reason=str(error.detail))
        return too_many_logins(request, error)
    if response.status_code != 200:  # a success is a redirect
        guesses.give_back()
    else:  # the page again, with what is wrong
        log.warning("login_failed")
        response.status_code = 403
        with_code(response, "authentication_failed")
    return response
