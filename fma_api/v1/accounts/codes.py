"""Codes of the second factor, limited per account and address, whichever way they come."""

from typing import Any

from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.login import record_authentication
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest
from rest_framework.request import Request

from fma_api.v1.limits import Guesses
from fma_django.accounts import second_factor
from fma_django.errors import PasswordLoginOff, SecondFactorRequired, WrongSecondFactor

SHOWN = "mfa"  # allauth's name for it
OF_AN_ACCOUNT = ((10, 3600), (20, 86_400), (60, 30 * 86_400))
"""Wrong codes in a period of seconds. Three of a million codes are right at a time: ten an hour would find one in a
year with a chance of 26 %, and all three limits leave 0.24 %."""


def accept_code(request: Request | HttpRequest, user: User, code: str) -> bool:
    """Whether this is an unused code of the user. Raises Throttled."""
    guesses = Guesses(
        request, of="codes", account=second_factor.name_of_limit(user), account_rates=OF_AN_ACCOUNT
    )
    guesses.count()
    is_right = second_factor.use_code(user, code)
    if is_right:
        guesses.give_back()
    return is_right


def require_password_login() -> None:
    """Raises PasswordLoginOff."""
    if not settings.FMA_PASSWORD_LOGIN:
        raise PasswordLoginOff(
            "nobody logs in with a password here: log in at the identity provider, and make a token"
        )


def require_code(request: Request, user: User, code: str) -> None:
    """Raises SecondFactorRequired, WrongSecondFactor, Throttled."""
    if second_factor.is_on(user):
        if not code:
            raise SecondFactorRequired(
                "the user logs in with a second factor: send its `code` as well", field="code"
            )
        if not accept_code(request, user, code):
            raise WrongSecondFactor("the code is wrong, or was used before", field="code")
    elif second_factor.is_missing(user):
        raise SecondFactorRequired("the user must set up a second factor in the admin first")


def require_no_code(user: User) -> None:
    """For a way to log in that has no place for a code. Raises SecondFactorRequired."""
    if second_factor.is_on(user) or second_factor.is_missing(user):
        raise SecondFactorRequired("the user logs in with a second factor: use a token")


def note_second_factor(request: HttpRequest, user: User) -> None:
    """Keep in the session that its user has shown their present second factor."""
    record_authentication(request, user, SHOWN, id=second_factor.id_of(user))


def user_of_session(request: HttpRequest) -> Any:
    """The user of the session; nobody if it has not shown the second factor that the user has now.

    Such a session was begun by a password alone: turning on a second factor ends it.
    """
    user: Any = auth.get_user(request)
    if not user.is_authenticated:
        return user
    present = second_factor.id_of(user)
    records = get_authentication_records(request, user)
    if present is None or any(
        record["method"] == SHOWN and record.get("id") == present for record in records
    ):
        return user
    for name in (auth.SESSION_KEY, auth.BACKEND_SESSION_KEY, auth.HASH_SESSION_KEY):
        request.session.pop(name, None)  # the rest stays: another login may wait for its code here
    return AnonymousUser()


def lacks_second_factor(request: HttpRequest) -> bool:
    """Whether the user of the session must set up a second factor first.

    Whoever came by the identity provider proved themselves as it demands.
    """
    user: Any = request.user
    if not second_factor.is_missing(user):
        return False
    records = get_authentication_records(request, user)
    return not any(record["method"] == "socialaccount" for record in records)
