"""`models/<id>/metrics/`: what was measured, round after round, for the model's owner."""

import csv
import io
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponseBase, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer, extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from fma_api.renderers import CSV, CsvRenderer, OrjsonRenderer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsUser
from fma_api.v1.models.clients import own_model
from fma_api.v1.pagination import LinkedPages
from fma_core.metrics import MAX_NAME_LENGTH, STATISTICS
from fma_django.models import FederatedModel, Round
from fma_django.models.model_update import UpdateVerdict
from fma_django.record.queries.metrics import SOURCES, client_metrics, merged_metrics, published_rounds

ROUNDS_AT_A_TIME = 50
FORMULA = ("=", "+", "-", "−", "@", "|", "%")
MERGED = ("source", "round", "aggregate", "metric", *STATISTICS)
OF_CLIENTS = ("source", "round", "aggregate", "client", "metric", "value", "weight", "verdict", "weight_used")

Rows = Callable[[Sequence[Round]], Iterator[dict[str, Any]]]


class MetricsQuery(serializers.Serializer[None]):
    # Serializer fields have an attribute of that name, which an input never needs.
    source = serializers.ChoiceField(choices=SOURCES, required=False)  # type: ignore[assignment]
    metric = serializers.CharField(max_length=MAX_NAME_LENGTH, required=False)
    first_round = serializers.IntegerField(min_value=0, max_value=2**31 - 1, required=False)
    last_round = serializers.IntegerField(min_value=0, max_value=2**31 - 1, required=False)
    per_client = serializers.BooleanField(
        required=False, default=False, help_text="Rows of each client, instead of all clients together."
    )


class MergedMetricSerializer(serializers.Serializer[Any]):
    """A metric over the clients of a round."""

    source = serializers.ChoiceField(choices=SOURCES)  # type: ignore[assignment]
    round = serializers.IntegerField()
    aggregate = serializers.IntegerField()
    metric = serializers.CharField()
    mean = serializers.FloatField(help_text="The mean, weighted by examples.")
    min = serializers.FloatField()
    max = serializers.FloatField()
    p5 = serializers.FloatField(help_text="A percentile of the clients, each counting once.")
    p50 = serializers.FloatField()
    p95 = serializers.FloatField()
    count = serializers.IntegerField(help_text="The number of clients that sent it.")
    weight = serializers.FloatField(help_text="The sum of their weights.")


class ClientMetricSerializer(serializers.Serializer[Any]):
    """A number that one client measured."""

    source = serializers.ChoiceField(choices=SOURCES)  # type: ignore[assignment]
    round = serializers.IntegerField()
    aggregate = serializers.IntegerField()
    client = serializers.UUIDField()
    metric = serializers.CharField()
    value = serializers.FloatField()
    weight = serializers.FloatField(
        help_text="The weight of the value in the mean; 0 for that of an update that was rejected."
    )
    verdict = serializers.ChoiceField(
        choices=UpdateVerdict.choices,
        allow_null=True,
        help_text="The verdict on its update; null for scores.",
    )
    weight_used = serializers.FloatField(allow_null=True, help_text="The share of its update in the result.")


class ModelMetricsView(AnnouncedBodies):
    permission_classes = (IsUser,)
    renderer_classes = (OrjsonRenderer, CsvRenderer)

    @extend_schema(
        summary="The metrics of the published rounds, oldest first",
        parameters=[
            MetricsQuery,
            OpenApiParameter("format", str, enum=["json", "csv"], description="In place of `Accept`."),
            OpenApiParameter("page", int, description="A page of rounds; JSON only."),
            OpenApiParameter("page_size", int, description="Rounds; at most 200, 10 by default. JSON only."),
        ],
        responses={
            (200, "application/json"): PolymorphicProxySerializer(
                component_name="Metric",
                serializers=[MergedMetricSerializer, ClientMetricSerializer],
                resource_type_field_name=None,
                many=True,
            ),
            (200, CSV): OpenApiTypes.STR,
        },
    )
    def get(self, request: Request, pk: str) -> HttpResponseBase:
        """Numbers of updates (`training`), of scores (`validation`) and of the developer, merged over clients.

        Pages are of rounds. CSV has all rounds.
        """
        federated_model = own_model(request, pk)
        query = MetricsQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        filters = query.validated_data
        rounds, rows = _rounds(federated_model, filters), _rows(filters)
        if request.accepted_renderer.media_type == CSV:
            columns = OF_CLIENTS if filters["per_client"] else MERGED
            response = StreamingHttpResponse(
                _as_csv(rounds, rows, columns), content_type=f"{CSV}; charset=utf-8"
            )
            response["Content-Disposition"] = f'attachment; filename="model-{federated_model.pk}-metrics.csv"'
            return response
        pages = LinkedPages()
        page = pages.paginate_queryset(rounds, request, view=self) or []
        return pages.get_paginated_response(list(rows(page)))


def _rounds(federated_model: FederatedModel, filters: dict[str, Any]) -> QuerySet[Round]:
    rounds = published_rounds(federated_model)
    if "first_round" in filters:
        rounds = rounds.filter(number__gte=filters["first_round"])
    return rounds.filter(number__lte=filters["last_round"]) if "last_round" in filters else rounds


def _rows(filters: dict[str, Any]) -> Rows:
    """A function that gives the wanted rows of some rounds."""
    measured: Callable[[Sequence[Round]], Iterable[Any]] = (
        client_metrics if filters["per_client"] else merged_metrics
    )

    def rows(rounds: Sequence[Round]) -> Iterator[dict[str, Any]]:
        for metric in measured(rounds):
            if all(
                filters.get(name, getattr(metric, name)) == getattr(metric, name)
                for name in ("source", "metric")
            ):
                yield metric.as_row()

    return rows


def _as_csv(rounds: QuerySet[Round], rows: Rows, columns: Sequence[str]) -> Iterator[str]:
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, columns)
    table.writeheader()
    last = -1
    while batch := list(rounds.filter(number__gt=last)[:ROUNDS_AT_A_TIME]):
        for row in rows(batch):
            table.writerow({**row, "metric": _harmless(row["metric"])})
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        last = batch[-1].number
    yield buffer.getvalue()


def _harmless(name: str) -> str:
    """Clients choose the names of metrics, and spreadsheets compute what begins like a formula.

    Some skip white space and control characters before it, and take full-width signs for the usual ones.
    """
    first = unicodedata.normalize("NFKC", name[:1])
    return f"'{name}" if first[:1] in FORMULA or not first.isprintable() or first.isspace() else name
