"""`client_aggregate_scores/`: validation results of clients on their own data."""

from typing import Any, cast

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import ValidationError

from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.authentication import HEADER
from fma_api.v1.callers import IsClient, IsUserOrClient, client_of
from fma_api.v1.filters import LIST_FILTERS
from fma_api.v1.idempotency import IDEMPOTENCY_KEY, idempotency_key
from fma_api.v1.ids import NUMBER
from fma_api.v1.pagination import LinkedPages
from fma_api.v1.scores.filters import ClientAggregateScoreFilters
from fma_api.v1.scores.serializers import NewScoreSerializer, ScoreSerializer
from fma_django.errors import ClientMismatch
from fma_django.evaluations.scores import receive_score
from fma_django.models import Client, ClientAggregateScore, ModelAggregate
from fma_django.record.queries.visible import visible_to


@extend_schema_view(
    list=extend_schema(summary="A client's own scores; those for a developer's models"),
    retrieve=extend_schema(summary="One score"),
)
class ClientAggregateScoreViewSet(
    AnnouncedBodies,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet[ClientAggregateScore],
):
    serializer_class = ScoreSerializer
    pagination_class = LinkedPages
    filter_backends = LIST_FILTERS
    filterset_class = ClientAggregateScoreFilters
    ordering_fields = ("created_on",)
    queryset = ClientAggregateScore.objects.order_by("-id")
    lookup_value_regex = NUMBER

    def get_permissions(self) -> list[BasePermission]:
        return [IsClient() if self.action == "create" else IsUserOrClient()]

    def get_queryset(self) -> QuerySet[ClientAggregateScore]:
        return visible_to(self.request.user, super().get_queryset().all())

    @extend_schema(
        summary="Report results for an aggregate, once",
        request=NewScoreSerializer,
        responses={201: ScoreSerializer},
        parameters=[IDEMPOTENCY_KEY],
    )
    def create(self, request: Request) -> Response:
        serializer = NewScoreSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        validated: dict[str, Any] = serializer.validated_data
        client = cast("Client", client_of(request))  # IsClient
        quoted = self._require_itself(request, client, validated.get("client"))
        aggregate = (
            ModelAggregate.objects.select_related("federated_model").filter(pk=validated["aggregate"]).first()
        )
        if aggregate is None:
            raise ValidationError({"aggregate": [f"There is no aggregate {validated['aggregate']}."]})
        score = receive_score(
            aggregate, client, validated["validation_results"], idempotency_key=idempotency_key(request)
        )
        return Response({**self.get_serializer(score).data, "client": quoted}, status=201)

    def _require_itself(self, request: Request, client: Client, quoted: str | None) -> str:
        """A client may name itself, by its public id or (as FMA's do) by its credential; it reads back what it sent."""
        own = {str(client.pk), request.headers[HEADER].lower()}
        if quoted is not None and quoted.lower() not in own:
            raise ClientMismatch("a client reports its own results only")
        return quoted or str(client.pk)
