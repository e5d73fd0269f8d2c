"""The path below which a reverse proxy shows the server, such as `/fl`.

It becomes WSGI's SCRIPT_NAME, from which Django makes every link. A proxy may strip it from the path or pass it on.
"""

import re
from functools import lru_cache
from typing import Any

import structlog
from django.conf import settings

log = structlog.get_logger(__name__)

_SEGMENTS = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")
# Behind a proxy that strips the prefix, a path of the server itself would look like one that has it.
_OF_THE_SERVER = re.compile(r"/api|/(api/(v1|schema|docs)|admin|static|api-token-auth|healthz|readyz)(/.*)?")
_SHOWN_CHARACTERS = 80


def parsed(value: str) -> str:
    """The prefix without a slash at its end; "" for none. Raises ValueError that says what must hold."""
    prefix = value.removesuffix("/")
    if prefix and not _SEGMENTS.fullmatch(prefix):
        raise ValueError(
            "a path of letters, digits, '.', '_', '~' and '-' that starts with a slash, such as /fl, without '//' and "
            "the segments '.' and '..'"
        )
    if _OF_THE_SERVER.fullmatch(prefix):
        raise ValueError(
            "another path than those of the server itself (/api, /admin, /static and so on), because both could not "
            "be told apart once a proxy has stripped one; such as /fl, or /fl/api"
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


@lru_cache(maxsize=64)  # a value that is ignored is so for each request, and is logged once
def _forwarded(header: str) -> str:
    # The proxy nearest to us says it last.
    prefix = header.rpartition(",")[2].strip(" \t")
    try:
        return parsed(prefix)
    except ValueError as error:
        log.warning(
            "forwarded_prefix_ignored",
            reason=f"X-Forwarded-Prefix must be {error}; found {prefix[:_SHOWN_CHARACTERS]!r}",
        )
        return ""
