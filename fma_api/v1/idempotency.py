"""The `Idempotency-Key` header."""

import hashlib

import orjson
from django.http import HttpRequest
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from fma_api.errors import InvalidHeader
from fma_api.json_memory import large_json_of
from fma_django.errors import IdempotencyKeyExpired
from fma_django.models import FederatedModel
from fma_django.record.idempotency import Once
from fma_django.record.queries.visible import visible_to

HEADER = "Idempotency-Key"
IDEMPOTENCY_KEY = OpenApiParameter(
    HEADER, str, OpenApiParameter.HEADER, description="The same key makes nothing twice."
)


def idempotency_key(request: HttpRequest | Request, *, at_least: int = 1) -> str | None:
    """The request's key, if it has one. Raises InvalidHeader."""
    key: str | None = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return None
    if not (at_least <= len(key) <= 255 and key.isascii() and key.isprintable()):
        raise InvalidHeader(
            f"{HEADER} must be {at_least} to 255 printable ASCII characters; a random UUID is best"
        )
    return key


def scope(request: Request, kind: str) -> str:
    return f"user {request.user.pk} {kind}"


def require_own(request: Request, made: FederatedModel) -> None:
    """Raises IdempotencyKeyExpired for a model that the key made, and that belongs to somebody else since."""
    if not visible_to(request.user, FederatedModel.objects.filter(pk=made.pk)).exists():
        raise IdempotencyKeyExpired(
            "what this Idempotency-Key made belongs to somebody else now; a new request needs a new key"
        )


def once_for_json(request: Request, kind: str) -> Once | None:
    """For a request that is all JSON."""
    key = idempotency_key(request)
    if key is None:
        return None
    data, large = request.data, large_json_of(request)
    if large is not None:
        fingerprint = large.fingerprint()
    else:
        fingerprint = hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return Once(scope(request, kind), key, fingerprint)
