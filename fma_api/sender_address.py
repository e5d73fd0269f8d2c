"""The network address of the sender of a request."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings


def sender_address(environ: Mapping[str, Any]) -> str:
    """The address of the connection, or, with FMA_TRUST_PROXY, the one that the proxy speaks for."""
    # Only a proxy of ours is believed, which adds whom it speaks for at the end.
    forwarded = environ.get("HTTP_X_FORWARDED_FOR", "") if settings.FMA_TRUST_PROXY else ""
    return forwarded.rpartition(",")[2].strip() or str(environ.get("REMOTE_ADDR", ""))
