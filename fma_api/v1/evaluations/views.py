"""`evaluations/`: open evaluations for a client, its result, and the metrics of all clients together."""

from typing import Any, cast

from django.db.models import QuerySet
from django.http import HttpResponse, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.renderers import SAFETENSORS, OrjsonRenderer, SafetensorsRenderer, dumps
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsClient, IsUserOrClient, MayChangeExperiment, client_of
from fma_api.v1.evaluations.filters import EvaluationFilters
from fma_api.v1.evaluations.serializers import (
    EvaluationSerializer,
    EvaluationWaitSerializer,
    NewResultSerializer,
    ResultSerializer,
)
from fma_api.v1.filters import LIST_FILTERS
from fma_api.v1.ids import NUMBER
from fma_api.v1.pagination import LinkedPages
from fma_api.v1.waiting import nothing_yet
from fma_api.v1.weights import weights_response
from fma_django.evaluations.ends import cancel_evaluation, close_evaluation
from fma_django.evaluations.results import receive_result
from fma_django.models import Client, EvaluationResult, EvaluationRound, FederatedModel
from fma_django.record.queries.evaluations import waiting_for, with_clients, with_progress
from fma_django.record.queries.visible import visible_to

OF_OWNERS = frozenset({"close", "cancel"})


@extend_schema_view(
    list=extend_schema(
        summary="The evaluations that wait for a client; those that a user may see",
        parameters=[EvaluationWaitSerializer],
    ),
    retrieve=extend_schema(summary="One evaluation; its metrics when it has closed with enough contributors"),
)
class EvaluationViewSet(
    AnnouncedBodies,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet[EvaluationRound],
):
    serializer_class = EvaluationSerializer
    pagination_class = LinkedPages
    filter_backends = LIST_FILTERS
    filterset_class = EvaluationFilters
    ordering_fields = ("opened_on",)
    queryset = EvaluationRound.objects.order_by("-id")
    lookup_value_regex = NUMBER

    def get_permissions(self) -> list[BasePermission]:
        if self.action == "send_result":
            return [IsClient()]
        return [MayChangeExperiment() if self.action in OF_OWNERS else IsUserOrClient()]

    def get_queryset(self) -> QuerySet[EvaluationRound]:
        client, evaluations = client_of(self.request), super().get_queryset().all()
        if client is not None and self.action == "list":
            return with_progress(waiting_for(client))
        if client is not None and self.action == "send_result":
            # That it was not chosen is a better answer than that there is no such evaluation.
            evaluations = evaluations.filter(federated_model__clients=client)
        elif self.action in OF_OWNERS:
            own = visible_to(self.request.user, FederatedModel.objects.all(), as_member=False)
            evaluations = evaluations.filter(federated_model__in=own)
        else:
            evaluations = visible_to(self.request.user, evaluations)
        return with_progress(evaluations) if client is not None else with_clients(with_progress(evaluations))

    def list(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:  # type: ignore[override]
        query = EvaluationWaitSerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        response = super().list(request, *args, **kwargs)
        client, wait_s = client_of(request), query.validated_data["wait"]
        if client is None or response.data or wait_s == 0:
            return response
        models = visible_to(client, FederatedModel.objects.all())
        filters = EvaluationFilters(request.query_params)
        if filters.is_valid() and (model_id := filters.form.cleaned_data["federated_model"]) is not None:
            models = models.filter(pk=model_id)
        return nothing_yet(
            models.values_list("pk", flat=True), wait_s, dumps([]), content_type="application/json"
        )

    @extend_schema(
        summary="The weights that are evaluated",
        responses={(200, "application/json"): OpenApiTypes.ANY, (200, SAFETENSORS): OpenApiTypes.BINARY},
    )
    @action(
        methods=["get"],
        detail=True,
        url_path="model",
        renderer_classes=[OrjsonRenderer, SafetensorsRenderer],
    )
    def weights(self, request: Request, pk: str) -> HttpResponseBase:
        return weights_response(request, self.get_object())

    @extend_schema(
        summary="The results of a client; the results of the clients of a member's organisation",
        responses=ResultSerializer(many=True),
        filters=False,
    )
    @action(methods=["get"], detail=True, filter_backends=[])
    def results(self, request: Request, pk: str) -> Response:
        """Developers and staff see no single result, only the metrics of all together, in the evaluation."""
        rows = EvaluationResult.objects.filter(evaluation=self.get_object()).order_by("-pk")
        own = visible_to(request.user, rows.select_related("organisation", "evaluation"))
        page: Any = self.paginate_queryset(cast("QuerySet[Any]", own))
        return self.get_paginated_response(ResultSerializer(page, many=True).data)

    @extend_schema(
        summary="Send the result of the client",
        request=NewResultSerializer,
        responses={201: ResultSerializer},
    )
    @results.mapping.post
    def send_result(self, request: Request, pk: str) -> Response:
        """A client sends one result. The same again answers the same; there is no need for an Idempotency-Key."""
        evaluation = self.get_object()
        serializer = NewResultSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        result = receive_result(
            evaluation, cast("Client", request.user), serializer.validated_data["statistics"]
        )
        return Response(ResultSerializer(result).data, status=201)

    @extend_schema(summary="Take no more results", request=None, responses=EvaluationSerializer)
    @action(methods=["post"], detail=True)
    def close(self, request: Request, pk: str) -> Response:
        """The metrics of the contributors are shown if these are enough."""
        close_evaluation(self.get_object())
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(
        summary="Take no more results, and show none", request=None, responses=EvaluationSerializer
    )
    @action(methods=["post"], detail=True)
    def cancel(self, request: Request, pk: str) -> Response:
        cancel_evaluation(self.get_object())
        return Response(self.get_serializer(self.get_object()).data)
