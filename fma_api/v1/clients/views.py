"""`clients/`: the clients of one's models, what they report, and how they take part."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from django.contrib.auth.models import User
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import Permitted
from fma_api.v1.clients.filters import ClientFilters, ClientParticipationQuery
from fma_api.v1.clients.key import checked_key
from fma_api.v1.clients.serializers import (
    ClientChangesSerializer,
    ClientSerializer,
    KeySerializer,
    ParticipationSummarySerializer,
    ReplacingKeySerializer,
)
from fma_api.v1.filters import LIST_FILTERS
from fma_api.v1.ids import UUID
from fma_api.v1.pagination import LargePages
from fma_django.accounts.roles import CHANGE_CLIENT
from fma_django.clients.changes import change_client, replace_key
from fma_django.models import Client, FederatedModel
from fma_django.record.queries.clients import clients_of
from fma_django.record.queries.participation_history import participation_of
from fma_django.record.queries.visible import visible_to


@extend_schema_view(
    list=extend_schema(summary="The clients of the caller's models and organisations, or all"),
    retrieve=extend_schema(summary="One client, with its newest report"),
)
class ClientViewSet(
    AnnouncedBodies,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet[Client],
):
    serializer_class = ClientSerializer
    pagination_class = LargePages
    filter_backends = LIST_FILTERS
    filterset_class = ClientFilters
    ordering_fields = ("created_on", "last_seen_on", "name")
    queryset = Client.objects.order_by("-created_on", "pk")
    lookup_value_regex = UUID

    permission_classes = (Permitted,)
    permission_of: ClassVar[Mapping[str, str]] = {
        "partial_update": CHANGE_CLIENT,
        "replace_key": CHANGE_CLIENT,
    }

    def get_queryset(self) -> QuerySet[Any]:
        return clients_of(self.request.user).order_by("-created_on", "pk")

    @extend_schema(
        summary="Change a client's name, tags or organisation, or revoke it",
        request=ClientChangesSerializer,
        responses=ClientSerializer,
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        """New tags are made; an organisation must be there. A revoked client stays revoked."""
        serializer = ClientChangesSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        change_client(self.get_object(), serializer.validated_data, by=cast("User", request.user))
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(
        summary="Replace a client's key",
        request=ReplacingKeySerializer,
        responses=KeySerializer,
        filters=False,
    )
    @action(methods=["put"], detail=True, url_path="key", filter_backends=(), pagination_class=None)
    def replace_key(self, request: Request, pk: str) -> Response:
        """The body is the request file of the client, so that its credential alone changes no key.

        The certificate of the key before goes with it.
        """
        client = self._client()
        key = checked_key(ReplacingKeySerializer(data=request.data))
        replace_key(client, key, by=cast("User", request.user))
        return Response(KeySerializer(client).data)

    @extend_schema(
        summary="The participation of a client in the rounds of the caller's models, a line a model",
        parameters=[ClientParticipationQuery],
        responses=ParticipationSummarySerializer(many=True),
    )
    @action(methods=["get"], detail=True, filterset_class=None, filter_backends=(), pagination_class=None)
    def participation(self, request: Request, pk: str) -> Response:
        """Counts the rounds that began at `since` or later and before `until`."""
        client = self._client()
        query = ClientParticipationQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        filters = dict(query.validated_data)
        models = visible_to(request.user, FederatedModel.objects.order_by("pk"))
        if "federated_model" in filters:
            models = models.filter(pk=filters.pop("federated_model"))
        summaries = participation_of(Client.objects.filter(pk=client.pk), models, **filters)
        return Response(ParticipationSummarySerializer(summaries, many=True).data)

    def _client(self) -> Client:
        """The client of the path, whatever the query filters."""
        client: Client = get_object_or_404(self.get_queryset(), pk=self.kwargs["pk"])
        return client
