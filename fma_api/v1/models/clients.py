"""`models/<id>/participation/` and `models/<id>/client_errors/`: all clients of an experiment, for its owner."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsUser
from fma_api.v1.clients.filters import ModelParticipationQuery
from fma_api.v1.clients.serializers import ParticipationSummarySerializer
from fma_api.v1.filters import LIST_FILTERS
from fma_api.v1.pagination import LargePages
from fma_api.v1.reports.filters import ErrorFilters
from fma_api.v1.reports.serializers import ClientErrorSerializer
from fma_django.models import Client, ClientError, FederatedModel
from fma_django.record.queries.participation_history import participation_of
from fma_django.record.queries.visible import visible_to


def own_model(request: Request, pk: str) -> FederatedModel:
    return get_object_or_404(
        visible_to(request.user, FederatedModel.objects.all(), as_member=False), pk=int(pk)
    )


class ModelParticipationView(AnnouncedBodies):
    permission_classes = (IsUser,)

    @extend_schema(
        summary="The participation of each client in the rounds of the model, a line a client that was asked",
        parameters=[ModelParticipationQuery],
        responses=ParticipationSummarySerializer(many=True),
    )
    def get(self, request: Request, pk: str) -> Response:
        """Counts the rounds that began at `since` or later and before `until`."""
        federated_model = own_model(request, pk)
        query = ModelParticipationQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        filters = dict(query.validated_data)
        clients = Client.objects.order_by("pk")
        if "tag" in filters:
            clients = clients.filter(tags__name=filters.pop("tag"))
        if "organisation" in filters:
            clients = clients.filter(organisation__name=filters.pop("organisation"))
        summaries = participation_of(clients, FederatedModel.objects.filter(pk=federated_model.pk), **filters)
        return Response(ParticipationSummarySerializer(summaries, many=True).data)


class ModelClientErrorsView(AnnouncedBodies, generics.ListAPIView[ClientError]):
    permission_classes = (IsUser,)
    serializer_class = ClientErrorSerializer
    pagination_class = LargePages
    filter_backends = LIST_FILTERS
    filterset_class = ErrorFilters
    ordering_fields = ("created_on",)
    queryset = ClientError.objects.order_by("-id")

    @extend_schema(summary="Errors of clients that trained the model, newest first")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Kept for FMA_TELEMETRY_DAYS."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[ClientError]:
        if getattr(self, "swagger_fake_view", False):
            return ClientError.objects.none()
        federated_model = own_model(self.request, self.kwargs["pk"])
        return super().get_queryset().filter(federated_model=federated_model)
