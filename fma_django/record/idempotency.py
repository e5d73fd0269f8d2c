"""Create at most once for a key: what is made and the memory of it commit together.

Kept is the id of what was made, not the answer: an answer may hold what must not be stored.
Source: draft-ietf-httpapi-idempotency-key-header.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from django.db import IntegrityError, models, transaction

from fma_django.errors import IdempotencyKeyExpired, IdempotencyKeyReused
from fma_django.models import IdempotencyKey

KEPT_FOR = timedelta(hours=24)

Made = TypeVar("Made", bound=models.Model)


@dataclass(frozen=True)
class Once:
    """scope: who asks, for what kind of thing. key: the caller's. fingerprint: SHA-256 (hex) of what is asked."""

    scope: str
    key: str
    fingerprint: str


def create_once(once: Once | None, kind: type[Made], create: Callable[[], Made]) -> Made:
    """Create an object, or give the one that the same key made before, in one transaction.

    Raises IdempotencyKeyReused when the key was used for a different request, IdempotencyKeyExpired when what was
    made then is gone.
    """
    if once is None:
        with transaction.atomic():
            return create()
    try:
        with transaction.atomic():
            made = made_before(once, kind)
            if made is None:
                # The key first: who comes second then waits for who came first, instead of meeting half of its work.
                remembered = IdempotencyKey.objects.create(
                    scope=once.scope, key=once.key, fingerprint=once.fingerprint
                )
                made = create()
                remembered.object_id = str(made.pk)
                remembered.save(update_fields=["object_id"])
            return made
    except IntegrityError:
        # Two requests with one key at the same time: the other one won, or the conflict is not about the key.
        made = made_before(once, kind)
        if made is None:
            raise
        return made


def made_before(once: Once, kind: type[Made]) -> Made | None:
    """The object that this key made; None for an unused key. Raises IdempotencyKeyReused and IdempotencyKeyExpired."""
    remembered = IdempotencyKey.objects.filter(scope=once.scope, key=once.key).first()
    if remembered is None:
        return None
    if remembered.fingerprint != once.fingerprint:
        raise IdempotencyKeyReused(
            "this Idempotency-Key was used for a different request; a new request needs a new key",
            key=once.key,
        )
    made = kind._default_manager.filter(pk=remembered.object_id).first()
    if made is None:
        raise IdempotencyKeyExpired(
            "what this Idempotency-Key made has been deleted; a new request needs a new key", key=once.key
        )
    return made
