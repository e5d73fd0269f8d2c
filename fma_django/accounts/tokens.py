"""Users' API tokens: named, limited to a scope or a model, expiring; only their hashes are in the database.

The token of a login is the same at every login, as FMA's scripts expect: an HMAC, by the server's secret key, of a
random salt. Whoever reads the database has the salts and the hashes, and can do nothing with them. All other tokens are
random, and shown once.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import AbstractUser, User
from django.db import OperationalError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from fma_django.accounts.users import require_may_change
from fma_django.errors import InvalidValue, NotPermitted
from fma_django.models import ApiToken, FederatedModel
from fma_django.models.api_token import TokenScope

LOGIN = "login"
"""The name of the token that logging in gives."""
TOKEN_HEX_DIGITS = 40  # as long as FMA's
MAX_TOKENS = 100
USE_NOTED_EVERY = timedelta(minutes=1)
SCOPES = tuple(TokenScope.values)
"""From the narrowest to the widest."""


@dataclass(frozen=True)
class Limits:
    """The requests that a token allows, the only model that it reaches, and the time until which it works."""

    scope: str = TokenScope.ADMIN
    federated_model: FederatedModel | None = None
    expires_on: datetime | None = None


def issue_token(user: User) -> str:
    """The token of a login: a new one the first time, and after the server's secret key changed or it was revoked."""
    with transaction.atomic():
        _lock(user)
        salt = secrets.token_hex(16)
        kept, _ = ApiToken.objects.get_or_create(
            user=user, name=LOGIN, defaults={"salt": salt, "key_hash": _hash(_derive(user, salt))}
        )
        token = _derive(user, kept.salt)
        if kept.key_hash != _hash(token):
            ApiToken.objects.filter(pk=kept.pk).update(key_hash=_hash(token))
    return token


def create_token(
    user: User, name: str, limits: Limits, *, asked_with: ApiToken | None = None
) -> tuple[ApiToken, str]:
    """A new token of the user, and its secret, which is not kept and cannot be shown again.

    asked_with: the token of the request, if any: the new one reaches no further and works no longer.
    Raises InvalidValue, NotPermitted.
    """
    if asked_with is not None:
        _require_within(limits, asked_with)
    if name == LOGIN:
        raise InvalidValue(f"{LOGIN!r} is the name of the token that logging in gives", field="name")
    if limits.expires_on is not None and limits.expires_on <= timezone.now():
        raise InvalidValue("a token expires in the future", field="expires_on")
    token = secrets.token_hex(TOKEN_HEX_DIGITS // 2)
    with transaction.atomic():
        _lock(user)
        if asked_with is not None and not ApiToken.objects.filter(pk=asked_with.pk).exists():
            raise NotPermitted("the token of this request has just been revoked")
        present = ApiToken.objects.filter(user=user)
        if present.count() >= MAX_TOKENS:
            raise InvalidValue(f"a user may have {MAX_TOKENS} tokens; revoke one", field="name")
        if present.filter(name=name).exists():
            raise InvalidValue(f"there is a token {name!r} already; revoke it first", field="name")
        made = ApiToken.objects.create(
            user=user,
            name=name,
            scope=limits.scope,
            federated_model=limits.federated_model,
            expires_on=limits.expires_on,
            key_hash=_hash(token),
        )
    return made, token


def find_token(token: str) -> ApiToken | None:
    """The token of an active user that has not expired, with its user. Notes the use, once a minute."""
    now = timezone.now()
    kept = ApiToken.objects.select_related("user").filter(key_hash=_hash(token)).first()
    if kept is None or not kept.user.is_active or (kept.expires_on is not None and kept.expires_on <= now):
        return None
    _note_use(kept, now)
    return kept


def tokens_of(user: User, *, by: User) -> QuerySet[ApiToken]:
    """The tokens of a user, for that user and for whoever may change the user. Raises NotPermitted."""
    if user.pk != by.pk:
        require_may_change(by, user)
    return ApiToken.objects.filter(user=user).order_by("-pk")


def revoke_tokens(user: AbstractUser, *, name: str | None = None) -> int:
    """Refuse the user's tokens from now on, or the one of this name; how many there were."""
    tokens = ApiToken.objects.filter(user_id=user.pk)
    deleted, _ = (tokens if name is None else tokens.filter(name=name)).delete()
    return deleted


def _lock(user: User) -> None:
    """Let nobody else make or revoke tokens of the user until the transaction ends.

    Raises NotPermitted when the password that let the caller in is no longer the user's.
    """
    locked = User.objects.select_for_update(no_key=True).filter(pk=user.pk).first()
    if locked is None or locked.password != user.password or not locked.is_active:
        raise NotPermitted("the user has been changed meanwhile; log in again")


def _require_within(limits: Limits, asked_with: ApiToken) -> None:
    if SCOPES.index(limits.scope) > SCOPES.index(asked_with.scope):
        raise NotPermitted(f"the token of this request has the scope {asked_with.scope!r}; it gives no more")
    only = asked_with.federated_model_id
    if only is not None and (limits.federated_model is None or limits.federated_model.pk != only):
        raise NotPermitted(f"the token of this request is for model {only} alone; it gives no more")
    until = asked_with.expires_on
    if until is not None and (limits.expires_on is None or limits.expires_on > until):
        raise NotPermitted(
            f"the token of this request expires on {until.isoformat()}; it gives none that works longer"
        )


def _note_use(token: ApiToken, now: datetime) -> None:
    """One UPDATE a minute, which changes nothing where another request was first."""
    before = now - USE_NOTED_EVERY
    if token.last_used_on is not None and token.last_used_on > before:
        return
    unnoted = Q(last_used_on=None) | Q(last_used_on__lte=before)
    try:
        ApiToken.objects.filter(unnoted, pk=token.pk).update(last_used_on=now)
    except OperationalError:
        return  # a database that is busy, or may only be read: no reason to refuse the request
    token.last_used_on = now


def _derive(user: User, salt: str) -> str:
    message = f"api token {user.pk} {salt}".encode()
    return hmac.new(settings.SECRET_KEY.encode(), message, hashlib.sha256).hexdigest()[:TOKEN_HEX_DIGITS]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
