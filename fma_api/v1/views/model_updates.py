"""`model_updates/`: what clients send."""

import uuid
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer, ValidationError

from fma_api.parsers import OrjsonParser, SafetensorsParser
from fma_api.renderers import SAFETENSORS, OrjsonRenderer, SafetensorsRenderer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsUserOrClient, client_of
from fma_api.v1.filters import LIST_FILTERS, ModelUpdateFilters
from fma_api.v1.idempotency import IDEMPOTENCY_KEY, idempotency_key
from fma_api.v1.pagination import LinkedPages
from fma_api.v1.serializers import (
    ClientModelUpdateSerializer,
    ModelUpdateSerializer,
    NewModelUpdateSerializer,
    UpdateFactsSerializer,
)
from fma_api.v1.weights import weights_response
from fma_core.errors import TruncatedBody
from fma_django.errors import UnknownModel
from fma_django.models import Client, FederatedModel, ModelUpdate
from fma_django.selectors.visible import visible_to
from fma_django.services.updates import UpdateFacts, receive_update
from fma_django.services.weights import JsonBody, SafetensorsBody, WeightsBody


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
    parser_classes = (OrjsonParser, SafetensorsParser)
    filter_backends = LIST_FILTERS
    filterset_class = ModelUpdateFilters
    ordering_fields = ("created_on",)
    queryset = ModelUpdate.objects.order_by("-id")
    lookup_value_regex = r"\d{1,18}"

    def get_serializer_class(self) -> type[BaseSerializer[ModelUpdate]]:
        return ModelUpdateSerializer if client_of(self.request) is None else ClientModelUpdateSerializer

    def get_queryset(self) -> QuerySet[ModelUpdate]:
        return visible_to(
            self.request.user, super().get_queryset().select_related("round", "federated_model")
        )

    @extend_schema(
        summary="Send an update",
        request={"application/json": NewModelUpdateSerializer, SAFETENSORS: OpenApiTypes.BINARY},
        responses={201: ClientModelUpdateSerializer},
        parameters=[
            OpenApiParameter(
                "federated_model", int, description="With a safetensors body, the facts are here."
            ),
            OpenApiParameter("base_aggregate", int),
            OpenApiParameter("num_examples", int),
            OpenApiParameter("metrics", str, description="A JSON object."),
            OpenApiParameter(
                "Content-Digest", str, OpenApiParameter.HEADER, description="RFC 9530, sha-256."
            ),
            IDEMPOTENCY_KEY,
        ],
    )
    def create(self, request: Request) -> Response:
        """The newest update of a client in a round replaces its earlier one; the same one again is the same update."""
        body: WeightsBody
        if isinstance(request.data, SafetensorsBody):
            asked: BaseSerializer[Any] = UpdateFactsSerializer(data=request.query_params)
            asked.is_valid(raise_exception=True)
            body = request.data
        elif (request.content_type or "").startswith(SAFETENSORS):
            raise TruncatedBody(
                "the body is empty; safetensors begin with the size of their header", field="data"
            )
        else:
            asked = NewModelUpdateSerializer(data=request.data)
            asked.is_valid(raise_exception=True)
            body = JsonBody(asked.validated_data["data"])
        said = asked.validated_data
        federated_model, client = self._parties(said["federated_model"], said.get("client"))
        update = receive_update(
            federated_model,
            client,
            body,
            UpdateFacts(
                base_aggregate_id=said.get("base_aggregate"),
                num_examples=said["num_examples"],
                metrics=said.get("metrics") or {},
            ),
            idempotency_key=idempotency_key(request),
        )
        return Response(self.get_serializer(update).data, status=201)

    @extend_schema(
        summary="The weights of an update",
        responses={(200, "application/json"): OpenApiTypes.ANY, (200, SAFETENSORS): OpenApiTypes.BINARY},
    )
    @action(methods=["get"], detail=True, renderer_classes=[OrjsonRenderer, SafetensorsRenderer])
    def weights(self, request: Request, pk: str) -> HttpResponseBase:
        return weights_response(request, self.get_object())

    def _parties(self, model_id: int, client_id: uuid.UUID | None) -> tuple[FederatedModel, Client]:
        """The model and the client that an update is about. A client speaks for itself, a developer names it."""
        client = client_of(self.request)
        models = FederatedModel.objects.all()
        # A client may name any model: that it has to register is a better answer than that there is no model.
        known = models if client is not None else visible_to(self.request.user, models)
        federated_model = known.filter(pk=model_id).first()
        if federated_model is None:
            raise UnknownModel(f"there is no model {model_id}")
        if client is None:
            client = Client.objects.filter(pk=client_id).first() if client_id else None
            if client is None:
                raise ValidationError({"client": ["A developer names a client by its public id."]})
        return federated_model, client
