"""Django's handler, called without WSGI's start_response: what it answers is an object, which says how it is sent."""

from typing import Any

import structlog
from django.core import signals
from django.core.handlers.wsgi import WSGIHandler, get_script_name
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import set_script_prefix

from fma_api import problems, security_headers, url_prefix

log = structlog.get_logger(__name__)


def answer(handler: WSGIHandler, environ: dict[str, Any]) -> HttpResponseBase:
    """The answer to a request, whatever happens; `close` it when it has been sent.

    What `WSGIHandler.__call__` does, and the one thing more: what goes wrong outside of Django's own handling of errors
    is a problem too.
    """
    response: HttpResponseBase
    try:
        url_prefix.place(environ)
        set_script_prefix(get_script_name(environ))
        signals.request_started.send(sender=type(handler), environ=environ)
        response = handler.get_response(handler.request_class(environ))
    except Exception:
        log.exception("request_broke")
        response = server_error()
    response._handler_class = type(handler)  # type: ignore[attr-defined]
    return response


def server_error() -> HttpResponse:
    """The answer to a request that broke, whatever it asked for."""
    response = problems.server_error(HttpRequest())
    for name, value in security_headers.of_no_page().items():
        response.headers[name] = value
    return response
