"""The time at which the user of a session last proved at the provider who they are.

A session that came by the provider has no password to ask for before it changes how its user logs in: it goes to the
provider once more, which then asks the user, and not only its own session.
"""

import time
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

RECENT_S = 300.0
FRESH = "fresh"
"""The parameter with which a login asks the provider to ask its user again."""

_PROVED = "fma_proved_at_provider"


def note(request: HttpRequest, user: User, auth_time: object) -> None:
    """Keep the time in the session. auth_time: the claim of the ID token; without a number there, it is now."""
    now = time.time()
    said = isinstance(auth_time, int | float) and not isinstance(auth_time, bool)
    request.session[_PROVED] = [user.pk, min(float(auth_time), now) if said else now]  # type: ignore[arg-type]


def is_recent(request: HttpRequest) -> bool:
    user, at = request.session.get(_PROVED) or (None, 0.0)
    return user == request.user.pk and time.time() - at < RECENT_S


def ask(request: HttpRequest) -> HttpResponse:
    """Go to the provider, and come back to this page. Raises PermissionDenied where there is none."""
    if not settings.FMA_OIDC_ISSUER:
        raise PermissionDenied
    return redirect(f"{reverse('oidc_login')}?{urlencode({'next': request.path, FRESH: '1'})}")
