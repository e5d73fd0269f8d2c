"""The memory for JSON that a request takes, from its parser to its answer."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase
from rest_framework.request import Request

from fma_django.record.json_memory import Reservation

KEY = "fma.json_memory"


def json_memory_of(request: HttpRequest | Request) -> Reservation:
    """The reservation of a request, which ends with its answer."""
    reservation: Reservation = request.META.setdefault(KEY, Reservation())
    return reservation


class JsonMemoryMiddleware:
    """Give back what a request has reserved."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return self._get_response(request)
        finally:
            if KEY in request.META:
                request.META.pop(KEY).close()
