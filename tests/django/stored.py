"""The weights and the state of an aggregate, read from the store."""

from typing import Any

from fma_core.arrays.codecs.safetensors import decode
from fma_django.models import ModelAggregate
from fma_django.storage import get_store


def bytes_of(sha256: str) -> bytes:
    return b"".join(get_store().open_range(sha256))


def weights_of(aggregate: ModelAggregate) -> dict[str, Any]:
    return decode(bytes_of(aggregate.sha256))


def state_of(aggregate: ModelAggregate) -> dict[str, Any]:
    """Nothing when none was kept."""
    return decode(bytes_of(aggregate.state_sha256)) if aggregate.state_sha256 else {}
