"""A new password, and a deactivation, end all tokens and sessions of a user, whichever way the user is changed.

A deactivation also revokes the user's invitations, which would count again after a reactivation. Whoever can no longer
log in by an account at the identity provider has no session of it any more.
Django ends the sessions at a new password itself: a session holds a hash of the password. `fma_django.apps` connects
these functions to the signals of the user.
"""

from collections.abc import Iterator
from typing import Any

from allauth.account.internal.flows.login import AUTHENTICATION_METHODS_SESSION_KEY
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.utils import timezone

from fma_django.accounts.tokens import revoke_tokens

_ENDS = "_fma_ends_tokens"
_ENDS_SESSIONS = "_fma_ends_sessions"


def look_before(instance: User, update_fields: frozenset[str] | None = None, **_: object) -> None:
    """Compare the user with the one in the database, before it is saved."""
    instance.__dict__.update({_ENDS: False, _ENDS_SESSIONS: False})
    if instance._state.adding or not (update_fields is None or update_fields & {"password", "is_active"}):
        return
    before = User.objects.filter(pk=instance.pk).values_list("password", "is_active").first()
    if before is None:
        return
    password, was_active = before
    # Django hashes a password anew when a login meets an old hash: that is the same password.
    is_new_password = password != instance.password and not _was_hashed_anew(instance)
    is_deactivated = was_active and not instance.is_active
    instance.__dict__.update({_ENDS: is_new_password or is_deactivated, _ENDS_SESSIONS: is_deactivated})


def end_after(instance: User, **_: object) -> None:
    """Revoke what the change ends, after it is saved: nobody gets a token for the former password any more."""
    if instance.__dict__.pop(_ENDS, False):
        revoke_tokens(instance)
    if instance.__dict__.pop(_ENDS_SESSIONS, False):
        _end_sessions(instance)
        instance.invitations.filter(revoked_on=None).update(revoked_on=timezone.now())


def end_sessions_of_account(instance: SocialAccount, **_: object) -> None:
    """End the sessions that an account at the identity provider has logged in, also those that wait for a code."""
    for session in _sessions():
        records = session.get_decoded().get(AUTHENTICATION_METHODS_SESSION_KEY) or ()
        accounts = {(record.get("provider"), record.get("uid")) for record in records}
        if (instance.provider, instance.uid) in accounts:
            session.delete()


def _was_hashed_anew(user: User) -> bool:
    # As Django's own `password_changed` tells them apart: a password that was set is there until the user is saved.
    return getattr(user, "_password", None) is None and user.has_usable_password()


def _end_sessions(user: User) -> None:
    """An inactive user has no session; without this, old ones would work again after a reactivation."""
    for session in _sessions():
        decoded: dict[str, Any] = session.get_decoded()
        if decoded.get(SESSION_KEY) == str(user.pk):
            session.delete()


def _sessions() -> Iterator[Session]:
    return Session.objects.filter(expire_date__gt=timezone.now()).iterator()
