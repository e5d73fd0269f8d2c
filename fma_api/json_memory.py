"""The memory for JSON that a request takes, and the process that parses large JSON, from its parser to its answer."""

from collections.abc import Callable
from contextlib import ExitStack

from django.http import HttpRequest, HttpResponseBase
from rest_framework.request import Request

from fma_django.record.json_memory import Reservation
from fma_django.record.json_process import LargeJson

KEY = "fma.json_memory"
LARGE_KEY = "fma.large_json"


def json_memory_of(request: HttpRequest | Request) -> Reservation:
    """The reservation of a request, which ends with its answer."""
    reservation: Reservation = request.META.setdefault(KEY, Reservation())
    return reservation


def large_json_of(request: HttpRequest | Request) -> LargeJson | None:
    """The JSON of a request that another process parses, which is freed with its answer."""
    large: LargeJson | None = request.META.get(LARGE_KEY)
    return large


def keep_large_json(request: HttpRequest | Request, large: LargeJson) -> None:
    """Let the answer of a request free its JSON."""
    request.META[LARGE_KEY] = large


class JsonMemoryMiddleware:
    """Give back what a request has reserved."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return self._get_response(request)
        finally:
            with ExitStack() as stack:
                for key in (KEY, LARGE_KEY):  # the memory after the process that takes it
                    if key in request.META:
                        stack.callback(request.META.pop(key).close)
