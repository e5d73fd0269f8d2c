"""`clients/me/`: what a client says of itself, and how fast its line to this server is."""

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from typing import Any, cast

import orjson
from django.http import HttpResponseBase, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.parsers import DiscardingParser, SmallJsonParser
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsClient
from fma_api.v1.idempotency import IDEMPOTENCY_KEY, idempotency_key
from fma_api.v1.reports.limits import ErrorsPerHour, SpeedTestsPerHour, TelemetryPerHour
from fma_api.v1.reports.serializers import (
    ClientErrorSerializer,
    NewErrorSerializer,
    SpeedTestSerializer,
    StoredTelemetrySerializer,
    TelemetrySerializer,
)
from fma_django.clients.reports import receive_error, receive_telemetry
from fma_django.errors import UnknownModel
from fma_django.models import Client, FederatedModel
from fma_django.record.idempotency import Once

BYTES = "application/octet-stream"
PIECE_BYTES = 2**16


class OwnTelemetryView(AnnouncedBodies):
    permission_classes = (IsClient,)
    parser_classes = (SmallJsonParser,)
    throttle_classes = (TelemetryPerHour,)

    @extend_schema(
        summary="Send telemetry: device, system, resources, connectivity, versions",
        request=TelemetrySerializer,
        responses={201: StoredTelemetrySerializer},
    )
    def post(self, request: Request) -> Response:
        """Every member may be left out; unknown ones are refused. At most 60 reports an hour."""
        serializer = TelemetrySerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        report = receive_telemetry(cast("Client", request.user), serializer.validated_data)
        return Response(StoredTelemetrySerializer(report).data, status=201)


class OwnErrorsView(AnnouncedBodies):
    permission_classes = (IsClient,)
    parser_classes = (SmallJsonParser,)
    throttle_classes = (ErrorsPerHour,)

    @extend_schema(
        summary="Report an error of the client",
        request=NewErrorSerializer,
        responses={201: ClientErrorSerializer},
        parameters=[IDEMPOTENCY_KEY],
    )
    def post(self, request: Request) -> Response:
        """At most 60 reports an hour."""
        serializer = NewErrorSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        validated: dict[str, Any] = serializer.validated_data
        client = cast("Client", request.user)
        error = receive_error(
            client,
            validated["code"],
            federated_model=_model(validated.get("federated_model")),
            round_number=validated.get("round"),
            message=validated.get("message", ""),
            traceback=validated.get("traceback", ""),
            once=_once(request, client),
        )
        return Response(ClientErrorSerializer(error).data, status=201)


class SpeedTestQuery(serializers.Serializer[None]):
    bytes = serializers.IntegerField(
        min_value=0,
        max_value=DiscardingParser.max_bytes,
        required=False,
        default=0,
        help_text="The number of bytes to send; none measures the round trip alone.",
    )


class SpeedTestView(AnnouncedBodies):
    permission_classes = (IsClient,)
    parser_classes = (DiscardingParser,)
    throttle_classes = (SpeedTestsPerHour,)

    @extend_schema(
        summary="Download bytes to measure the speed",
        parameters=[SpeedTestQuery],
        responses={(200, BYTES): OpenApiTypes.BINARY},
    )
    def get(self, request: Request) -> HttpResponseBase:
        """The bytes are random and cannot be compressed. At most 120 tests an hour, of 4 MiB each."""
        query = SpeedTestQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        size: int = query.validated_data["bytes"]
        response = StreamingHttpResponse(_noise(size), content_type=BYTES)
        response["Content-Length"] = str(size)
        response["Cache-Control"] = "no-store"
        return response

    @extend_schema(
        summary="Upload bytes to measure the speed",
        request={BYTES: OpenApiTypes.BINARY},
        responses=SpeedTestSerializer,
    )
    def post(self, request: Request) -> Response:
        """The bytes are read and dropped."""
        received: Any = request.data  # an empty body is not parsed at all
        return Response({"size_bytes": received.get("size_bytes", 0)})


def _model(model_id: int | None) -> FederatedModel | None:
    if model_id is None:
        return None
    federated_model = FederatedModel.objects.filter(pk=model_id).first()
    if federated_model is None:
        raise UnknownModel(f"There is no model {model_id}.")
    return federated_model


def _once(request: Request, client: Client) -> Once | None:
    key = idempotency_key(request)
    if key is None:
        return None
    content = orjson.dumps(request.data, option=orjson.OPT_SORT_KEYS)
    return Once(f"client {client.pk} error", key, hashlib.sha256(content).hexdigest())


def _noise(size: int) -> Iterator[bytes]:
    for start in range(0, size, PIECE_BYTES):
        yield _piece()[: size - start]


@cache
def _piece() -> bytes:
    return os.urandom(PIECE_BYTES)
