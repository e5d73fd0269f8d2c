"""The path below which a reverse proxy shows the server, such as `/fl`.

It becomes WSGI's SCRIPT_NAME, from which Django makes every link. A proxy may strip it from the path or pass it on.
"""

import re
from typing import Any

from django.conf import settings

PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def parsed(value: str) -> str:
    """The prefix without a slash at its end; "" for none. Raises ValueError that says what must hold."""
    prefix = value.rstrip("/")
    if prefix and not PREFIX.fullmatch(prefix):
        raise ValueError(
            "a path of letters, digits, '.', '_', '~' and '-' that starts with a slash, such as /fl"
        )
    return prefix


def place(environ: dict[str, Any]) -> None:
    """Split the path of a request (a WSGI environment) into the prefix and the server's own path."""
    prefix = settings.FMA_URL_PREFIX
    if not prefix and settings.FMA_TRUST_PROXY and "HTTP_X_FORWARDED_PREFIX" in environ:
        prefix = _forwarded(environ["HTTP_X_FORWARDED_PREFIX"])
    if not prefix or environ.get("SCRIPT_NAME"):
        return
    environ["SCRIPT_NAME"] = prefix
    path = environ.get("PATH_INFO", "")
    if path == prefix or path.startswith(f"{prefix}/"):
        environ["PATH_INFO"] = path[len(prefix) :] or "/"


def _forwarded(header: str) -> str:
    # The proxy nearest to us says it last.
    prefix = header.rpartition(",")[2].strip().rstrip("/")
    return prefix if PREFIX.fullmatch(prefix) else ""
