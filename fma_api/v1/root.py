"""`/api/v1/`: its collections."""

from collections.abc import Sequence
from typing import Any

from django.urls import URLPattern
from django.urls import reverse as path_of
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsUserOrClient

ADDRESSES = {"type": "object", "additionalProperties": {"type": "string", "format": "uri"}}


class RootView(AnnouncedBodies):
    permission_classes = (IsUserOrClient,)
    routes: Sequence[Any] = ()
    """The routes that are looked through for lists."""

    @extend_schema(summary="The collections, with their addresses", responses={200: ADDRESSES})
    def get(self, request: Request) -> Response:
        """As FMA's: the name of each collection, and where it is. Not everybody may read each of them."""
        lists = [
            str(route.name)
            for route in self.routes
            if isinstance(route, URLPattern) and getattr(route.callback, "actions", {}).get("get") == "list"
        ]
        # An address may carry the query of the request (`format`); a path does not.
        return Response({_last_piece(path_of(name)): reverse(name, request=request) for name in lists})


def _last_piece(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
