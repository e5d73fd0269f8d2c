"""`models/<id>/evaluations/`: opening one, and those that were opened."""

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import ValidationError

from fma_api.parsers import EvaluationJsonParser, SafetensorsParser
from fma_api.renderers import SAFETENSORS
from fma_api.v1.evaluations.serializers import EvaluationSerializer, NewEvaluationSerializer
from fma_api.v1.idempotency import IDEMPOTENCY_KEY, idempotency_key, scope
from fma_api.v1.pagination import LinkedPages
from fma_core.arrays.codecs import json_bytes
from fma_django.evaluations.opening import Chosen, EvaluationRules, open_evaluation
from fma_django.models import EvaluationRound, FederatedModel
from fma_django.record.queries.evaluations import with_clients, with_progress
from fma_django.record.weights import JsonBody, SafetensorsBody, WeightsBody


class ModelEvaluations(viewsets.GenericViewSet[FederatedModel]):
    @extend_schema(
        summary="The evaluations of the model, newest first",
        responses=EvaluationSerializer(many=True),
        filters=False,
    )
    @action(
        methods=["get"],
        detail=True,
        pagination_class=LinkedPages,
        filter_backends=[],
        parser_classes=[EvaluationJsonParser, SafetensorsParser],
    )
    def evaluations(self, request: Request, pk: str) -> Response:
        page: Any = self.paginate_queryset(_shown(self.get_object().evaluations.order_by("-pk")))  # type: ignore[arg-type]
        return self.get_paginated_response(self._shown(page, many=True))

    @extend_schema(
        summary="Ask clients to evaluate weights",
        request={"application/json": NewEvaluationSerializer, SAFETENSORS: OpenApiTypes.BINARY},
        responses={201: EvaluationSerializer},
        parameters=[
            OpenApiParameter(
                "evaluation", str, description="With a safetensors body, the JSON of all else is here."
            ),
            IDEMPOTENCY_KEY,
        ],
    )
    @evaluations.mapping.post
    def open_evaluation(self, request: Request, pk: str) -> Response:
        """Evaluates an aggregate, an artifact, or weights of your own. The clients that are asked are settled now."""
        federated_model = self.get_object()
        validated, body = _asked(request)
        key = idempotency_key(request)
        evaluation = open_evaluation(
            federated_model,
            validated["question"],
            aggregate_id=validated.get("aggregate"),
            artifact_id=validated.get("artifact"),
            body=body,
            chosen=Chosen(*(tuple(validated[name]) for name in ("clients", "tags", "organisations"))),
            rules=EvaluationRules(
                validated.get("min_contributors"),
                validated.get("quorum_per_organisation"),
                validated["deadline_s"],
            ),
            name=validated["name"],
            once_key=None if key is None else (scope(request, f"evaluation of {federated_model.pk}"), key),
        )
        opened = _shown(EvaluationRound.objects.filter(pk=evaluation.pk)).get()
        return Response(self._shown(opened), status=201)

    def _shown(self, instance: Any, many: bool = False) -> Any:
        return EvaluationSerializer(instance, many=many, context=self.get_serializer_context()).data


def _shown(evaluations: QuerySet[EvaluationRound]) -> QuerySet[EvaluationRound]:
    return with_clients(with_progress(evaluations))


def _asked(request: Request) -> tuple[Mapping[str, Any], WeightsBody | None]:
    """The question and its rules, and weights if the request brings some."""
    if isinstance(request.data, SafetensorsBody):
        validated = _read(json_bytes.loads(request.query_params.get("evaluation", "").encode()))
        if validated.get("weights") is not None:
            raise ValidationError({"weights": ["The body of the request is the weights."]})
        return validated, request.data
    validated = _read(request.data)
    return validated, None if validated.get("weights") is None else JsonBody(validated["weights"])


def _read(data: Any) -> Mapping[str, Any]:
    serializer = NewEvaluationSerializer(data=data)
    serializer.is_valid(raise_exception=True)
    validated: Mapping[str, Any] = serializer.validated_data
    return validated
