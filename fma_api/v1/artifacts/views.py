"""`model_artifacts/`: published weights."""

from django.db.models import QuerySet
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request

from fma_api.renderers import SAFETENSORS, OrjsonRenderer, SafetensorsRenderer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.artifacts.filters import ModelArtifactFilters
from fma_api.v1.artifacts.serializers import ModelArtifactSerializer
from fma_api.v1.callers import IsUserOrClient
from fma_api.v1.filters import LIST_FILTERS
from fma_api.v1.ids import NUMBER
from fma_api.v1.pagination import LinkedPages
from fma_api.v1.weights import weights_response
from fma_django.models import ModelArtifact
from fma_django.record.queries.visible import visible_to


@extend_schema_view(
    list=extend_schema(summary="Artifacts; their weights as URLs"),
    retrieve=extend_schema(summary="One artifact"),
)
class ModelArtifactViewSet(
    AnnouncedBodies,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet[ModelArtifact],
):
    serializer_class = ModelArtifactSerializer
    pagination_class = LinkedPages
    permission_classes = (IsUserOrClient,)
    filter_backends = LIST_FILTERS
    filterset_class = ModelArtifactFilters
    ordering_fields = ("created_on",)
    queryset = ModelArtifact.objects.order_by("-id")
    lookup_value_regex = NUMBER

    def get_queryset(self) -> QuerySet[ModelArtifact]:
        return visible_to(self.request.user, super().get_queryset().select_related("federated_model"))

    @extend_schema(
        summary="The weights of an artifact",
        responses={(200, "application/json"): OpenApiTypes.ANY, (200, SAFETENSORS): OpenApiTypes.BINARY},
    )
    @action(methods=["get"], detail=True, renderer_classes=[OrjsonRenderer, SafetensorsRenderer])
    def weights(self, request: Request, pk: str) -> HttpResponseBase:
        return weights_response(request, self.get_object())
