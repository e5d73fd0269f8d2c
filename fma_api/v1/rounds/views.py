"""`models/<id>/rounds/…`: the rounds of a model, who was chosen for them, and ending one."""

from typing import Any, cast

from django.db.models import QuerySet, prefetch_related_objects
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.callers import IsUserOrClient, client_of, organisations_shown
from fma_api.v1.pagination import LargePages, LinkedPages
from fma_api.v1.rounds.serializers import RoundSerializer, SelectionSerializer
from fma_django.models import FederatedModel, Round
from fma_django.record.configuration import as_configured
from fma_django.record.queries.cohorts import selection_of
from fma_django.record.queries.rounds import rounds_of
from fma_django.rounds import publishing

NUMBER = OpenApiParameter("number", int, OpenApiParameter.PATH)
ONE = r"rounds/(?P<number>\d{1,9})"


class ModelRounds(viewsets.GenericViewSet[FederatedModel]):
    @extend_schema(
        summary="The rounds of the model, newest first", responses=RoundSerializer(many=True), filters=False
    )
    @action(
        methods=["get"],
        detail=True,
        permission_classes=[IsUserOrClient],
        pagination_class=LinkedPages,
        filter_backends=[],
    )
    def rounds(self, request: Request, pk: str) -> Response:
        page = self.paginate_queryset(cast("QuerySet[Any]", rounds_of(self.get_object())))
        return self.get_paginated_response(self._rendered_rounds(page, many=True))

    @extend_schema(
        summary="One round: its state, the clients that answered, its timings, the reason why it failed",
        responses=RoundSerializer,
        parameters=[NUMBER],
    )
    @action(methods=["get"], detail=True, permission_classes=[IsUserOrClient], url_path=ONE, url_name="round")
    def round_by_number(self, request: Request, pk: str, number: str) -> Response:
        return Response(self._rendered_rounds(self._round(number)))

    @extend_schema(
        summary="The clients that were chosen for a round, those that were not, and why",
        responses=SelectionSerializer,
        parameters=[
            NUMBER,
            OpenApiParameter(
                "page", int, description="A page of `clients`; the other pages are in the header `Link`."
            ),
            OpenApiParameter("page_size", int),
        ],
        filters=False,
    )
    @action(
        methods=["get"],
        detail=True,
        permission_classes=[IsUserOrClient],
        url_path=f"{ONE}/selection",
        url_name="round-selection",
        pagination_class=LargePages,
        filter_backends=[],
    )
    def selection(self, request: Request, pk: str, number: str) -> Response:
        round_ = self._round(number)
        looked_at, client = selection_of(round_), client_of(request)
        if client is not None:
            looked_at = looked_at.filter(client=client)
        elif (shown := organisations_shown(request, round_.federated_model)) is not None:
            looked_at = looked_at.filter(client__organisation__in=shown)
        page = self.paginate_queryset(cast("QuerySet[Any]", looked_at))
        answer = {
            "number": round_.number,
            "everyone": not as_configured(round_).chooses_clients,
            "num_asked": round_.num_asked,
            "waits_for": round_.waits_for,
            "clients": page,
        }
        return self.get_paginated_response(SelectionSerializer(answer).data)

    @extend_schema(
        summary="End a collecting round without using its updates; the next one opens",
        request=None,
        responses=RoundSerializer,
        parameters=[NUMBER],
    )
    @action(methods=["post"], detail=True, url_path=f"{ONE}/cancel", url_name="round-cancel")
    def cancel_round(self, request: Request, pk: str, number: str) -> Response:
        """409 when the round is not collecting, or no longer."""
        publishing.cancel(self._round(number))
        return Response(self._rendered_rounds(self._round(number)))

    def _round(self, number: str) -> Round:
        return get_object_or_404(rounds_of(self.get_object()), number=int(number))

    def _rendered_rounds(self, rows: Any, many: bool = False) -> Any:
        client = client_of(self.request)
        if client is not None:
            prefetch_related_objects([client], "tags")
        return RoundSerializer(rows, many=many, context=self.get_serializer_context()).data
