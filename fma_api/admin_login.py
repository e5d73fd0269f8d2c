"""The login page of the admin, with the limit for guesses that the API has, and a failure that is one."""

from math import ceil

import structlog
from django.contrib import admin
from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.cache import never_cache
from rest_framework.exceptions import Throttled

from fma_api.problems import too_many_logins, with_code
from fma_api.v1.limits import Guesses

log = structlog.get_logger(__name__)


@never_cache
def login(request: HttpRequest) -> HttpResponseBase:
    """Django's page; a wrong password is 403 (it was 200), and 429 beyond FMA_LOGIN_RATE."""
    if request.method != "POST":
        return admin.site.login(request)
    guesses = Guesses(request, account=request.POST.get("username", ""))
    try:
        guesses.count()
        with guesses.checked():
            response = admin.site.login(request)
    except Throttled as error:
        log.warning("login_refused", reason="too many wrong passwords")
        return too_many_logins(request, seconds=ceil(getattr(error, "wait", None) or 1))
    if response.status_code != 200:  # a success is a redirect
        guesses.give_back()
    else:  # the page again, with what is wrong
        log.warning("login_failed")
        response.status_code = 403
        with_code(response, "authentication_failed")
    return response
