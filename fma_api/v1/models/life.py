"""`models/<id>/…`: starting, pausing, ending an experiment, going back, going on elsewhere, and its history."""

from typing import Any, cast

from django.contrib.auth.models import User
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from fma_api.v1.aggregates.serializers import ModelAggregateSerializer
from fma_api.v1.idempotency import IDEMPOTENCY_KEY, once_for_json, require_own
from fma_api.v1.models.serializers import (
    CloneSerializer,
    ConfigVersionSerializer,
    FederatedModelSerializer,
    RewindSerializer,
)
from fma_api.v1.pagination import LinkedPages
from fma_django.clients.consent import attachable_by
from fma_django.errors import InvalidValue
from fma_django.experiments import lifecycle
from fma_django.models import Client, FederatedModel, ModelAggregate
from fma_django.record.queries.configurations import history_of, with_changes


class ExperimentLife(viewsets.GenericViewSet[FederatedModel]):
    @extend_schema(
        summary="Let the rounds of the model run", request=None, responses=FederatedModelSerializer
    )
    @action(methods=["post"], detail=True)
    def start(self, request: Request, pk: str) -> Response:
        """Starts a new, paused or ended experiment. A round that is due starts or closes at once."""
        return self._answered(lifecycle.start(self.get_object()))

    @extend_schema(
        summary="Close no round and ask no client for now", request=None, responses=FederatedModelSerializer
    )
    @action(methods=["post"], detail=True)
    def pause(self, request: Request, pk: str) -> Response:
        """Updates that are sent wait, and deadlines stand still. 409 once the experiment has ended."""
        return self._answered(lifecycle.pause(self.get_object()))

    @extend_schema(summary="Go on after a pause", request=None, responses=FederatedModelSerializer)
    @action(methods=["post"], detail=True)
    def resume(self, request: Request, pk: str) -> Response:
        """409 once the experiment has ended; `start/` begins it again."""
        return self._answered(lifecycle.resume(self.get_object()))

    @extend_schema(summary="End the experiment", request=None, responses=FederatedModelSerializer)
    @action(methods=["post"], detail=True)
    def cancel(self, request: Request, pk: str) -> Response:
        """Updates that wait do not count. 409 once it has ended."""
        return self._answered(lifecycle.cancel_experiment(self.get_object()))

    @extend_schema(
        summary="Go on from an earlier aggregate",
        request=RewindSerializer,
        responses={201: ModelAggregateSerializer},
        parameters=[IDEMPOTENCY_KEY],
    )
    @action(methods=["post"], detail=True)
    def rewind(self, request: Request, pk: str) -> Response:
        """The answer is a copy of it, which is the newest aggregate now; what came after it is abandoned."""
        federated_model = self.get_object()
        serializer = RewindSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        restored = lifecycle.rewind(
            federated_model,
            _aggregate_of(federated_model, serializer.validated_data["aggregate"]),
            once=once_for_json(request, f"rewinding {federated_model.pk}"),
        )
        context = self.get_serializer_context()
        return Response(ModelAggregateSerializer(restored, context=context).data, status=201)

    @extend_schema(
        summary="A new model with the same configuration",
        request=CloneSerializer,
        responses={201: FederatedModelSerializer},
        parameters=[IDEMPOTENCY_KEY],
    )
    @action(methods=["post"], detail=True)
    def clone(self, request: Request, pk: str) -> Response:
        """The clone belongs to the caller and is not started. Clients that the caller may not attach are left out."""
        federated_model = self.get_object()
        serializer = CloneSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        validated = serializer.validated_data
        aggregate = validated.get("aggregate")
        developer = cast("User", request.user)
        made = lifecycle.clone(
            federated_model,
            developer=developer,
            name=validated.get("name"),
            aggregate=None if aggregate is None else _aggregate_of(federated_model, aggregate),
            clients=_attachable(federated_model, developer) if validated["clients"] else (),
            once=once_for_json(request, f"clone of {federated_model.pk}"),
        )
        require_own(request, made)
        return Response(self.get_serializer(made).data, status=201)

    @extend_schema(
        summary="The versions of the model's configuration, newest first, and what each changed",
        responses=ConfigVersionSerializer(many=True),
        filters=False,
    )
    @action(methods=["get"], detail=True, pagination_class=LinkedPages, filter_backends=[])
    def history(self, request: Request, pk: str) -> Response:
        page = self.paginate_queryset(cast("QuerySet[Any]", history_of(self.get_object())))
        versions: Any = with_changes(list(page or []))
        return self.get_paginated_response(ConfigVersionSerializer(versions, many=True).data)

    def _answered(self, changed: FederatedModel) -> Response:
        return Response(self.get_serializer(changed).data)


def _attachable(federated_model: FederatedModel, caller: User) -> QuerySet[Client]:
    return attachable_by(caller).filter(federated_models=federated_model, is_active=True)


def _aggregate_of(federated_model: FederatedModel, pk: int) -> ModelAggregate:
    aggregate = federated_model.aggregates.filter(pk=pk).first()
    if aggregate is None:
        raise InvalidValue(f"model {federated_model.pk} has no aggregate {pk}", field="aggregate")
    return aggregate
