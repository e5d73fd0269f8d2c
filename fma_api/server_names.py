"""The names by which clients may have called this server."""

from django.conf import settings
from django.http import HttpRequest
from rest_framework.request import Request

from fma_core.identity.possession import server_name


def server_names(request: HttpRequest | Request) -> tuple[str, ...]:
    """The name that the request came to, and those of FMA_ALLOWED_HOSTS, for proxies that put another one into it."""
    whole = (name for name in settings.ALLOWED_HOSTS if name != "*" and not name.startswith("."))
    return (server_name(request.get_host()), *map(server_name, whole))
