"""`model_updates/`: the updates of clients."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.serializers import BaseSerializer

from fma_api.problems import as_http
from fma_api.renderers import SAFETENSORS, OrjsonRenderer, SafetensorsRenderer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsUserOrClient, client_of
from fma_api.v1.filters import LIST_FILTERS
from fma_api.v1.idempotency import IDEMPOTENCY_KEY
from fma_api.v1.ids import NUMBER
from fma_api.v1.pagination import LinkedPages
from fma_api.v1.updates.facts import METRICS
from fma_api.v1.updates.fast_path import receive
from fma_api.v1.updates.filters import ModelUpdateFilters
from fma_api.v1.updates.serializers import (
    ClientModelUpdateSerializer,
    ModelUpdateSerializer,
    NewModelUpdateSerializer,
)
from fma_api.v1.updates.signature import SIGNATURE_HEADER
from fma_api.v1.weights import weights_response
from fma_django.models import ModelUpdate
from fma_django.record.queries.visible import visible_to


@extend_schema_view(
    list=extend_schema(summary="A client's own updates; those of a developer's models"),
    retrieve=extend_schema(summary="One update"),
)
class ModelUpdateViewSet(
    AnnouncedBodies,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet[ModelUpdate],
):
    pagination_class = LinkedPages
    permission_classes = (IsUserOrClient,)
    filter_backends = LIST_FILTERS
    filterset_class = ModelUpdateFilters
    ordering_fields = ("created_on",)
    queryset = ModelUpdate.objects.order_by("-id")
    lookup_value_regex = NUMBER

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        # DRF's way to `create` would take longer than all that is done there, and an update is what there is most of.
        if self.action_map.get((request.method or "").lower()) == "create":
            return self.create(request)
        return super().dispatch(request, *args, **kwargs)

    def get_serializer_class(self) -> type[BaseSerializer[ModelUpdate]]:
        return ModelUpdateSerializer if client_of(self.request) is None else ClientModelUpdateSerializer

    def get_queryset(self) -> QuerySet[ModelUpdate]:
        return visible_to(
            self.request.user, super().get_queryset().select_related("round", "federated_model", "signed")
        )

    @extend_schema(
        summary="Send an update",
        request={"application/json": NewModelUpdateSerializer, SAFETENSORS: OpenApiTypes.BINARY},
        responses={201: ClientModelUpdateSerializer},
        parameters=[
            OpenApiParameter(
                "federated_model", int, description="With a safetensors body, the facts are here."
            ),
            OpenApiParameter(
                "upload",
                OpenApiTypes.UUID,
                description="A complete upload, which says all else; without a body.",
            ),
            OpenApiParameter("base_aggregate", int),
            OpenApiParameter("num_examples", int),
            OpenApiParameter(
                "client", OpenApiTypes.UUID, description="The client's public id; for developers only."
            ),
            OpenApiParameter(
                "metrics", str, deprecated=True, description="A JSON object; queries are in logs."
            ),
            OpenApiParameter(
                METRICS, str, OpenApiParameter.HEADER, description="The metrics, a JSON object."
            ),
            OpenApiParameter(
                "Content-Digest", str, OpenApiParameter.HEADER, description="RFC 9530, sha-256."
            ),
            OpenApiParameter(
                "Content-Encoding",
                str,
                OpenApiParameter.HEADER,
                enum=["zstd"],
                description="For a safetensors body that is one zstd frame.",
            ),
            SIGNATURE_HEADER,
            IDEMPOTENCY_KEY,
        ],
    )
    def create(self, request: HttpRequest) -> HttpResponse:
        """The newest update of a client in a round replaces its earlier one; the same one again is the same update."""
        try:
            return receive(request)
        except Exception as error:  # noqa: BLE001 - as_http raises what it does not know
            return as_http(error)

    @extend_schema(
        summary="The weights of an update",
        responses={(200, "application/json"): OpenApiTypes.ANY, (200, SAFETENSORS): OpenApiTypes.BINARY},
    )
    @action(methods=["get"], detail=True, renderer_classes=[OrjsonRenderer, SafetensorsRenderer])
    def weights(self, request: Request, pk: str) -> HttpResponseBase:
        return weights_response(request, self.get_object())
