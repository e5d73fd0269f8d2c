"""`POST clients/me/credential/`: a client's next credential."""

from typing import Any, cast

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.errors import InvalidHeader
from fma_api.parsers import SmallJsonParser
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsClient
from fma_api.v1.idempotency import HEADER, idempotency_key
from fma_api.v1.limits import PerHour
from fma_django.clients.credentials import give_next_credential
from fma_django.models import Client

KEY_LENGTH = 16


class CredentialsPerHour(PerHour):
    name = "credentials"
    most = 60


class NextCredentialSerializer(serializers.Serializer[Any]):
    uuid = serializers.UUIDField(help_text="The next credential. It is shown here only; keep it.")
    id = serializers.UUIDField(help_text="The client's public id, which stays.")
    superseded_on = serializers.DateTimeField(
        help_text="The time from which the present credential is refused, unless the next one is used before."
    )


class OwnCredentialView(AnnouncedBodies):
    permission_classes = (IsClient,)
    parser_classes = (SmallJsonParser,)
    throttle_classes = (CredentialsPerHour,)

    @extend_schema(
        summary="Get the client's next credential",
        request=None,
        responses={201: NextCredentialSerializer},
        parameters=[
            OpenApiParameter(
                HEADER,
                str,
                OpenApiParameter.HEADER,
                required=True,
                description="16 characters or more, random. The same key answers the same credential.",
            )
        ],
    )
    def post(self, request: Request) -> Response:
        """The present credential works until the next one is first used, or for a day, whichever comes first."""
        key = idempotency_key(request, at_least=KEY_LENGTH)
        if key is None:
            raise InvalidHeader(
                f"{HEADER} is missing: without it, a repeated request would end the answer before"
            )
        client = cast("Client", request.user)
        given = give_next_credential(client, idempotency_key=key)
        answer = {"uuid": given.credential, "id": client.pk, "superseded_on": given.superseded_on}
        return Response(
            NextCredentialSerializer(answer).data, status=201, headers={"Cache-Control": "no-store"}
        )
