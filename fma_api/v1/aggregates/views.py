"""`model_aggregates/`: the results of rounds."""

from typing import Any
from uuid import uuid4

from django.db.models import QuerySet
from django.http import Http404, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.renderers import SAFETENSORS, OrjsonRenderer, SafetensorsRenderer, dumps
from fma_api.v1.aggregates.filters import ModelAggregateFilters
from fma_api.v1.aggregates.serializers import (
    ModelAggregateSerializer,
    ModelAggregateWithWeightsSerializer,
    VersionSerializer,
)
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.artifacts.serializers import ModelArtifactSerializer
from fma_api.v1.callers import IsUserOrClient, MayChangeExperiment
from fma_api.v1.filters import LIST_FILTERS
from fma_api.v1.idempotency import IDEMPOTENCY_KEY, idempotency_key, scope
from fma_api.v1.ids import NUMBER
from fma_api.v1.pagination import LinkedPages
from fma_api.v1.weights import blob_response, json_response, weights_response
from fma_django.evaluations.scores import score_aggregate
from fma_django.experiments.artifacts import publish_aggregate
from fma_django.models import ModelAggregate
from fma_django.record.queries.visible import visible_to


@extend_schema_view(
    list=extend_schema(summary="Aggregates; their weights as URLs"),
    partial_update=extend_schema(summary="Give an aggregate its validation score"),
)
class ModelAggregateViewSet(
    AnnouncedBodies,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.UpdateModelMixin,
    viewsets.GenericViewSet[ModelAggregate],
):
    http_method_names = ("get", "head", "options", "patch", "post")
    serializer_class = ModelAggregateSerializer
    pagination_class = LinkedPages
    filter_backends = LIST_FILTERS
    filterset_class = ModelAggregateFilters
    ordering_fields = ("created_on", "validation_score")
    queryset = ModelAggregate.objects.order_by("-id")
    lookup_value_regex = NUMBER

    def get_permissions(self) -> list[BasePermission]:
        if self.action in ("list", "retrieve", "weights", "state"):
            return [IsUserOrClient()]
        return [MayChangeExperiment()]

    def get_queryset(self) -> QuerySet[ModelAggregate]:
        return visible_to(self.request.user, super().get_queryset().select_related("federated_model"))

    def perform_update(self, serializer: Any) -> None:
        if "validation_score" in serializer.validated_data:
            score_aggregate(serializer.instance, serializer.validated_data["validation_score"])

    @extend_schema(summary="One aggregate with its weights", responses=ModelAggregateWithWeightsSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        aggregate = self.get_object()
        # The weights take the place of the URL as they are written, piece by piece.
        place = uuid4().hex
        members = {**self.get_serializer(aggregate).data, "result": place}
        before, after = dumps(members).split(dumps(place))
        return json_response(aggregate, before=before, after=after)

    @extend_schema(
        summary="The weights of an aggregate",
        responses={(200, "application/json"): OpenApiTypes.ANY, (200, SAFETENSORS): OpenApiTypes.BINARY},
    )
    @action(methods=["get"], detail=True, renderer_classes=[OrjsonRenderer, SafetensorsRenderer])
    def weights(self, request: Request, pk: str) -> HttpResponseBase:
        return weights_response(request, self.get_object())

    @extend_schema(
        summary="The strategy's state that belongs to an aggregate, as safetensors",
        responses={(200, SAFETENSORS): OpenApiTypes.BINARY},
    )
    @action(methods=["get"], detail=True, renderer_classes=[SafetensorsRenderer])
    def state(self, request: Request, pk: str) -> HttpResponseBase:
        """SCAFFOLD's control variate, which clients need, or an optimiser's moments. 404 when there is none."""
        aggregate = self.get_object()
        if not aggregate.state_sha256:
            raise Http404
        return blob_response(request, aggregate.state_sha256, aggregate.state_size_bytes or 0)

    @extend_schema(
        summary="Publish an aggregate under a version",
        request=VersionSerializer,
        responses={201: ModelArtifactSerializer},
        parameters=[IDEMPOTENCY_KEY],
    )
    @action(methods=["post"], detail=True)
    def publish_aggregate(self, request: Request, pk: str) -> Response:
        """The artifact becomes the model's current one. A version is used once."""
        serializer = VersionSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        key = idempotency_key(request)
        artifact = publish_aggregate(
            self.get_object(),
            serializer.validated_data["version"],
            once_key=None if key is None else (scope(request, "artifact"), key),
        )
        rendered = ModelArtifactSerializer(artifact, context=self.get_serializer_context())
        return Response(rendered.data, status=201)
