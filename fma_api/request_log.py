"""One line for each request, and its id on every line that is written on its behalf."""

import uuid
from collections.abc import Callable

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.functional import SimpleLazyObject

from fma_api.front.marks import is_kept

log = structlog.get_logger(__name__)


class RequestLogMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        structlog.contextvars.bind_contextvars(request_id=uuid.uuid4().hex, ip=_address(request))
        try:
            response = self._get_response(request)
            query = request.META.get("QUERY_STRING")
            event, write = "request_finished", log.info
            if is_kept(request.META, response):
                event, write = "request_waits", log.debug
            elif response.status_code >= 400:
                write = log.warning if response.status_code < 500 else log.error
            write(
                event,
                code=response.status_code,
                request=f"{request.method} {request.path}{'?' if query else ''}{query}",
                user_id=_caller(request),
            )
            return response
        finally:
            structlog.contextvars.clear_contextvars()


def _address(request: HttpRequest) -> str:
    # Only a proxy of ours is believed, which adds whom it speaks for at the end.
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "") if settings.FMA_TRUST_PROXY else ""
    return forwarded.rpartition(",")[2].strip() or str(request.META.get("REMOTE_ADDR", ""))


def _caller(request: HttpRequest) -> str | None:
    """The id of who was found to be calling. Nobody is looked for here: that would cost queries."""
    known = request.__dict__
    user = known.get("user")
    if isinstance(user, SimpleLazyObject):
        user = known.get("_cached_user")
    pk = known.get("client_id") or getattr(user, "pk", None)
    return None if pk is None else str(pk)
