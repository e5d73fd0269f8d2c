"""Django's middleware for pages: sessions and what rests on them.

A request to the API that carries no cookie has no session, and goes past all of it: of a small update that was more
work than everything else together.
"""

from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject

if TYPE_CHECKING:
    Base = MiddlewareMixin
else:
    Base = object


def is_of_a_program(request: HttpRequest) -> bool:
    return "HTTP_COOKIE" not in request.META and request.path_info.startswith("/api/v1/")


class ForBrowsers(Base):
    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        go_on = self.get_response if is_of_a_program(request) else super().__call__
        return cast("HttpResponseBase", go_on(request))


class Sessions(ForBrowsers, SessionMiddleware):
    """Keep the cookies below the prefix of the server: other paths of the host belong to others.

    Their names have the prefix at the end. Browsers send the cookies of a server at / to one at /fl as well, and of two
    with one name only one would be read.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        prefix = request.META.get("SCRIPT_NAME", "")
        if not prefix:
            return super().__call__(request)
        own_names = {
            name: f"{name}{prefix.replace('/', '+')}"
            for name in (settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME)
        }
        for name, own_name in own_names.items():
            request.COOKIES.pop(name, None)
            if own_name in request.COOKIES:
                request.COOKIES[name] = request.COOKIES.pop(own_name)
        response = super().__call__(request)
        for name, own_name in own_names.items():
            if name in response.cookies:
                cookie = response.cookies.pop(name)
                cookie.set(own_name, cookie.value, cookie.coded_value)
                response.cookies[own_name] = cookie
        for cookie in response.cookies.values():
            if cookie["path"] == "/":
                cookie["path"] = f"{prefix}/"
        return response


class Csrf(ForBrowsers, CsrfViewMiddleware):
    """The API's views are exempt: they take a session only together with DRF's own check."""


class Authentication(ForBrowsers, AuthenticationMiddleware):
    """Django's, for which a session that has not shown the second factor of its user is nobody's."""

    def process_request(self, request: HttpRequest) -> None:
        from fma_api.v1.accounts.codes import user_of_session  # knows models

        def user() -> Any:
            if not hasattr(request, "_cached_user"):  # Django's name, which the log of requests reads
                request._cached_user = user_of_session(request)  # type: ignore[attr-defined]
            return request._cached_user  # type: ignore[attr-defined]

        request.user = SimpleLazyObject(user)  # type: ignore[assignment]


class Messages(ForBrowsers, MessageMiddleware):
    pass


class Common(CommonMiddleware):
    """Check the host and set the length of the answer, for programs too."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not is_of_a_program(request):
            return cast("HttpResponseBase", super().__call__(request))
        request._current_scheme_host  # type: ignore[attr-defined]  # noqa: B018  # kept for all who ask
        response = cast("HttpResponseBase", self.get_response(request))
        if isinstance(response, HttpResponse) and "Content-Length" not in response.headers:
            response.headers["Content-Length"] = str(len(response.content))
        return response
