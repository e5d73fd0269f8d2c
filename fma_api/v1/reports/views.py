"""`clients/<id>/telemetry/` and `clients/<id>/errors/`: the reports of one client, newest first."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsUser
from fma_api.v1.filters import LIST_FILTERS
from fma_api.v1.pagination import LargePages
from fma_api.v1.reports.filters import ErrorFilters, TelemetryFilters
from fma_api.v1.reports.serializers import ClientErrorSerializer, StoredTelemetrySerializer
from fma_django.models import Client, ClientError, ClientTelemetry
from fma_django.record.queries.clients import clients_of, errors_of, telemetry_of


class ClientTelemetryView(AnnouncedBodies, generics.ListAPIView[ClientTelemetry]):
    permission_classes = (IsUser,)
    serializer_class = StoredTelemetrySerializer
    pagination_class = LargePages
    filter_backends = LIST_FILTERS
    filterset_class = TelemetryFilters
    ordering_fields = ("created_on",)
    queryset = ClientTelemetry.objects.all()

    @extend_schema(summary="The telemetry of a client, newest first")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Kept for FMA_TELEMETRY_DAYS."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[ClientTelemetry]:
        return telemetry_of(_client(self.request, self.kwargs["pk"]))


class ClientErrorsView(AnnouncedBodies, generics.ListAPIView[ClientError]):
    permission_classes = (IsUser,)
    serializer_class = ClientErrorSerializer
    pagination_class = LargePages
    filter_backends = LIST_FILTERS
    filterset_class = ErrorFilters
    ordering_fields = ("created_on",)
    queryset = ClientError.objects.all()

    @extend_schema(summary="The errors of a client, newest first")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Errors that name a model are shown to its owner. Kept for FMA_TELEMETRY_DAYS."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[ClientError]:
        return errors_of(self.request.user, [_client(self.request, self.kwargs["pk"])])


def _client(request: Request, pk: str) -> Client:
    client: Client = get_object_or_404(clients_of(request.user), pk=pk)
    return client
