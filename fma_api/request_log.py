"""One line for each request, and its id on every line that is written on its behalf."""

import logging
import re
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import orjson
import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.functional import SimpleLazyObject

from fma_api.front.responses import is_kept
from fma_api.sender_address import sender_address

MEASURED = re.compile(r"((?:^|&)metrics=)[^&]*")
"""The metrics of an update, which older clients send in the query."""
LOGGED_IN = re.compile(r"((?:^|&)code=)[^&]*")
"""The code with which the identity provider sends somebody back."""
LEVELS = {2: "info", 3: "info", 4: "warning", 5: "error"}


class RequestLogMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request_id, ip = uuid.uuid4().hex, sender_address(request.META)
        structlog.contextvars.bind_contextvars(request_id=request_id, ip=ip)
        try:
            response = self._get_response(request)
        finally:
            structlog.contextvars.clear_contextvars()
        event, level = "request_finished", LEVELS.get(response.status_code // 100, "info")
        if is_kept(response, request.META):
            event, level = "request_waits", "debug"
        if _is_logged(level):
            query = request.META.get("QUERY_STRING", "")
            if not query.isascii():
                query = query.encode("latin-1").decode(errors="replace")
            if "metrics" in query:
                query = MEASURED.sub(r"\1…", query)
            if request.path.endswith("/admin/login/oidc/callback/"):
                query = LOGGED_IN.sub(r"\1…", query)
            request_line = f"{request.method} {request.path}{'?' if query else ''}{query}"
            _write(
                event,
                level,
                {
                    "status": response.status_code,
                    **_code(response),
                    "ip": ip,
                    "request": request_line,
                    "request_id": request_id,
                    "user_id": _caller(request),
                },
            )
        return response


def _is_logged(level: str) -> bool:
    return getattr(logging, level.upper()) >= logging.root.level  # type: ignore[no-any-return]


def _write(event: str, level: str, facts: dict[str, object]) -> None:
    """As fma_api.logging writes events, without its processors: these are nearly all lines that there are, and cost a
    small update a tenth of its time."""
    now = f"{datetime.now(UTC).replace(tzinfo=None).isoformat()}Z"
    if settings.FMA_LOG_FORMAT == "json":
        line = orjson.dumps({**facts, "event": event, "level": level, "timestamp": now}).decode()
    else:
        members = " ".join(f"{name}={_shown(value)}" for name, value in facts.items())
        line = f"{now} [{level:<9}] {event:<30} {members}"
    sys.stderr.write(f"{line}\n")


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


def _code(response: HttpResponseBase) -> dict[str, str]:
    """The code of a problem, which says more than its status."""
    code = getattr(response, "problem_code", None)
    if code is None and response.status_code >= 400 and isinstance(getattr(response, "data", None), dict):
        code = response.data.get("code")  # type: ignore[attr-defined]
    return {} if code is None else {"code": str(code)}


def _caller(request: HttpRequest) -> str | None:
    """The id of the caller if a view has authenticated it; looking it up here would cost queries."""
    known = request.__dict__
    user = known.get("user")
    if isinstance(user, SimpleLazyObject):
        user = known.get("_cached_user")
    pk = known.get("client_id") or getattr(user, "pk", None)
    if isinstance(pk, str) and len(pk) == 32:
        pk = uuid.UUID(pk)  # as SQLite keeps it
    return None if pk is None else str(pk)
