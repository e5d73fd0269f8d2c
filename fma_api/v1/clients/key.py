"""`clients/me/key/`: a client's own key."""

from typing import Any, cast

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.parsers import SmallJsonParser
from fma_api.server_names import server_names
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsClient
from fma_api.v1.clients.serializers import KeySerializer, NewKeySerializer
from fma_api.v1.limits import PerHour
from fma_django.clients.keys import SentKey, add_key, sent_key
from fma_django.models import Client


class KeysPerHour(PerHour):
    name = "keys"
    most = 60


class OwnKeyView(AnnouncedBodies):
    permission_classes = (IsClient,)
    parser_classes = (SmallJsonParser,)
    throttle_classes = (KeysPerHour,)

    @extend_schema(
        summary="Add the client's key, once, or a certificate for it",
        request=NewKeySerializer,
        responses=KeySerializer,
    )
    def post(self, request: Request) -> Response:
        """The proof is made for the client's public id. The same key again changes nothing; another one is refused."""
        client = cast("Client", request.user)
        add_key(client, checked_key(NewKeySerializer(data=request.data), servers=server_names(request)))
        return Response(KeySerializer(client).data)


def checked_key(serializer: Any, *, servers: tuple[str, ...] = ()) -> SentKey:
    """The key that a serializer has read. Raises DRF's ValidationError, and as `sent_key`."""
    serializer.is_valid(raise_exception=True)
    return cast("SentKey", sent_key(serializer.validated_data, servers=servers))
