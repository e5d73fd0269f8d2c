"""The logins that a browser has begun, in a signed cookie of its own: a stranger who begins many fills no table.

allauth keeps the state of a login in the session, which would make a row for each.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from allauth.socialaccount.internal.statekit import STATE_TTL, STATES_SESSION_KEY
from django.conf import settings
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse

MOST_AT_ONCE = 3  # in tabs of one browser, which keeps 4096 bytes of a cookie

_NEW_COOKIE = "_fma_begun_logins"


@contextmanager
def in_cookie(request: HttpRequest) -> Iterator[None]:
    """Let allauth find the logins of the cookie, and no others, in the session."""
    session, _ = (
        request.session,
        request.user.is_authenticated,
    )  # of the session, which the user is read from lazily
    request.session = SessionStore(request.COOKIES.get(_name()))
    try:
        yield
        request.__dict__[_NEW_COOKIE] = dict(request.session.get(STATES_SESSION_KEY) or {})
    finally:
        request.session = session


def keep(request: HttpRequest, response: HttpResponseBase) -> None:
    """Give the browser the logins that are left: those of `in_cookie`, without one that has come back."""
    begun = request.__dict__.get(_NEW_COOKIE)
    if begun:
        newest = sorted(begun.items(), key=lambda login: login[1][1])[-MOST_AT_ONCE:]
        store = SessionStore()
        store[STATES_SESSION_KEY] = dict(newest)
        store.save()
        response.set_cookie(
            _name(),
            store.session_key or "",
            max_age=STATE_TTL,
            path=reverse("oidc_login"),
            secure=bool(settings.SESSION_COOKIE_SECURE),
            httponly=True,
            samesite="Lax",  # the provider sends the browser back
        )
    elif _name() in request.COOKIES:
        response.delete_cookie(_name(), path=reverse("oidc_login"), samesite="Lax")


def _name() -> str:
    return f"{settings.SESSION_COOKIE_NAME}_login"
