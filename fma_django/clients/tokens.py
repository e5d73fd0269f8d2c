"""Users' API tokens: the same token at every login, as FMA's scripts expect, and only its hash in the database.

A token is an HMAC, by the server's secret key, of a random salt. Whoever reads the database has the salts and the
hashes, and can do nothing with them.
"""

import hashlib
import hmac
import secrets

from django.conf import settings
from django.contrib.auth.models import AbstractUser, User
from django.db import transaction

from fma_django.models import ApiToken

TOKEN_HEX_DIGITS = 40  # as long as FMA's


def issue_token(user: User) -> str:
    """The user's token: a new one the first time, and after the server's secret key changed or it was revoked."""
    with transaction.atomic():
        salt = secrets.token_hex(16)
        kept, _ = ApiToken.objects.get_or_create(
            user=user, defaults={"salt": salt, "key_hash": _hash(_derive(user, salt))}
        )
        token = _derive(user, kept.salt)
        if kept.key_hash != _hash(token):
            ApiToken.objects.filter(pk=kept.pk).update(key_hash=_hash(token))
    return token


def find_user(token: str) -> User | None:
    """The active user whose token this is."""
    kept = ApiToken.objects.select_related("user").filter(key_hash=_hash(token)).first()
    return kept.user if kept is not None and kept.user.is_active else None


def revoke_token(user: AbstractUser) -> bool:
    """Make the user's token worthless; whether there was one."""
    deleted, _ = ApiToken.objects.filter(user_id=user.pk).delete()
    return deleted > 0


def _derive(user: User, salt: str) -> str:
    message = f"api token {user.pk} {salt}".encode()
    return hmac.new(settings.SECRET_KEY.encode(), message, hashlib.sha256).hexdigest()[:TOKEN_HEX_DIGITS]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
