"""`models/`: models, the clients that register with them, and their newest weights."""

from typing import Any, cast

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import viewsets
from rest_framework.decorators import action
from rest_framework.permissions import AllowAny, BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import ValidationError

from fma_api.parsers import InitialModelJsonParser, NewModelJsonParser, SafetensorsParser, SmallJsonParser
from fma_api.renderers import SAFETENSORS, OrjsonRenderer, SafetensorsRenderer
from fma_api.server_names import server_names
from fma_api.v1 import authentication
from fma_api.v1.aggregates.serializers import ModelAggregateSerializer
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.artifacts.serializers import ModelArtifactSerializer
from fma_api.v1.callers import IsUserOrClient, MayChangeExperiment, MayRunExperiments, client_of, user_of
from fma_api.v1.evaluations.of_model import ModelEvaluations
from fma_api.v1.filters import LIST_FILTERS
from fma_api.v1.idempotency import IDEMPOTENCY_KEY, idempotency_key, once_for_json, require_own, scope
from fma_api.v1.ids import NUMBER
from fma_api.v1.limits import Guesses, count_registration
from fma_api.v1.models.filters import FederatedModelFilters
from fma_api.v1.models.joining import Joining
from fma_api.v1.models.latest import latest_at_once, newer_at_once
from fma_api.v1.models.life import ExperimentLife
from fma_api.v1.models.serializers import (
    FederatedModelSerializer,
    LatestModelSerializer,
    NewFederatedModelSerializer,
    NewRegistrationSerializer,
    RegistrationSerializer,
)
from fma_api.v1.pagination import LargePages
from fma_api.v1.rounds.views import ModelRounds
from fma_api.v1.waiting import WaitSerializer, newer_aggregate, nothing_yet
from fma_api.v1.weights import wants_safetensors, weights_response
from fma_django import conf
from fma_django.clients import registration as clients
from fma_django.clients.keys import SentKey, sent_key
from fma_django.errors import NotRegistered, UnknownUpload
from fma_django.experiments import changes as federated_models
from fma_django.experiments.initial_model_in_parts import finish_initial_model
from fma_django.models import FederatedModel, Upload
from fma_django.record.queries.aggregates import LatestModel, latest_aggregate, latest_model
from fma_django.record.queries.configurations import with_newest_number
from fma_django.record.queries.visible import visible_to
from fma_django.record.weights import JsonBody, SafetensorsBody
from fma_django.updates.uploads import find_upload

INVITATION = "FMA-Invitation"
READ_BY_CLIENTS = frozenset(
    {
        "get_latest_aggregate",
        "get_current_artifact",
        "get_latest_model",
        "rounds",
        "round_by_number",
        "selection",
    }
)
# What they call says what a client lacks.
ASKED_BY_CLIENTS = frozenset({"register_client", "join"})
# The rest shows the clients of everybody, or changes the model.
READ_BY_MEMBERS = READ_BY_CLIENTS | {"list", "retrieve"}
NOTHING_NEWER = OpenApiResponse(description="Nothing newer came in time.")


@extend_schema_view(
    list=extend_schema(summary="The models of the caller; all of them for who may view them"),
    create=extend_schema(
        summary="Create a model",
        request=NewFederatedModelSerializer,
        responses={201: FederatedModelSerializer},
        parameters=[IDEMPOTENCY_KEY],
    ),
    retrieve=extend_schema(summary="One model"),
    update=extend_schema(summary="Replace the configuration of a model"),
    partial_update=extend_schema(summary="Change a model; `allow_aggregation` pauses and resumes it"),
    destroy=extend_schema(summary="Delete a model with everything in it"),
)
class FederatedModelViewSet(
    AnnouncedBodies,
    ExperimentLife,
    ModelRounds,
    ModelEvaluations,
    Joining,
    viewsets.ModelViewSet[FederatedModel],
):
    serializer_class = FederatedModelSerializer
    pagination_class = LargePages
    parser_classes = (NewModelJsonParser,)
    permission_classes = (MayChangeExperiment,)
    filter_backends = LIST_FILTERS
    filterset_class = FederatedModelFilters
    ordering_fields = ("created_on",)
    queryset = FederatedModel.objects.order_by("-id")
    lookup_value_regex = NUMBER

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        answer = None
        match self.action_map.get("get"):
            case "get_latest_model":
                answer = latest_at_once(request, int(kwargs["pk"]))
            case "get_latest_aggregate":
                answer = newer_at_once(request, int(kwargs["pk"]))
        if answer is not None:
            return answer
        return super().dispatch(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[FederatedModel]:
        queryset = super().get_queryset().select_related("current_artifact")
        if self.action in ("list", "retrieve", "create", "update", "partial_update"):
            queryset = queryset.prefetch_related("clients")
        if self.action == "list":
            queryset = with_newest_number(queryset)
        if self.action in ASKED_BY_CLIENTS:
            return queryset
        if client_of(self.request) is not None and self.action in READ_BY_CLIENTS:
            return queryset  # check_object_permissions tells a client to register, where that is all that is missing
        return visible_to(self.request.user, queryset, as_member=self.action in READ_BY_MEMBERS)

    def get_permissions(self) -> list[BasePermission]:
        if self.action in ("create", "clone"):
            return [MayRunExperiments()]
        return [cast("BasePermission", permission) for permission in super().get_permissions()]

    def check_object_permissions(self, request: Request, obj: FederatedModel) -> None:
        super().check_object_permissions(request, obj)
        client = client_of(request)
        if (
            client is not None
            and self.action in READ_BY_CLIENTS
            and not obj.clients.filter(pk=client.pk, is_active=True).exists()
        ):
            raise NotRegistered.of(obj.pk)

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        serializer = NewFederatedModelSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        options = dict(serializer.validated_data)
        initial = options.pop("initial_model", None)
        created = federated_models.create_federated_model(
            developer=options.pop("developer", request.user),
            initial_model=None if initial is None else JsonBody(initial),
            once=once_for_json(request, "model"),
            **options,
        )
        require_own(request, created)
        return Response(self.get_serializer(created).data, status=201)

    def perform_update(self, serializer: Any) -> None:
        if "initial_model" in self.request.data:
            raise ValidationError(
                {"initial_model": ["The first weights of a model that is there go to its initial_model/."]}
            )
        serializer.instance = federated_models.change_federated_model(
            serializer.instance, dict(serializer.validated_data), by=user_of(self.request)
        )
        serializer.instance._prefetched_objects_cache = {}

    def perform_destroy(self, instance: FederatedModel) -> None:
        federated_models.delete_federated_model(instance)

    @extend_schema(
        summary="Register as a client of the model",
        request=NewRegistrationSerializer,
        responses=RegistrationSerializer,
        parameters=[
            OpenApiParameter(
                authentication.HEADER,
                str,
                OpenApiParameter.HEADER,
                description="A known client's credential.",
            ),
            OpenApiParameter("FMA-Enrolment-Token", str, OpenApiParameter.HEADER),
            OpenApiParameter(
                INVITATION, str, OpenApiParameter.HEADER, description="The token of an invitation."
            ),
            IDEMPOTENCY_KEY,
        ],
        auth=[],
    )
    @action(
        methods=["post"],
        detail=True,
        permission_classes=[AllowAny],
        authentication_classes=[],
        parser_classes=[SmallJsonParser],
    )
    def register_client(self, request: Request, pk: str) -> Response:
        """A new client without the header `CLIENT-UUID`, the same client with it. The credential is shown only here.

        With FMA_REGISTRATION=jwt the header `Authorization: Bearer <JWT>` proves who registers; the same subject is the
        same client.

        With an Idempotency-Key (16 characters or more, random: it stands for the credential for a day) a repeated
        request answers the same credential.
        """
        federated_model = self.get_object()
        policy = conf.current().registration
        credential = request.headers.get(authentication.HEADER)
        invitation = request.headers.get(INVITATION)
        key = idempotency_key(request, at_least=16)
        if credential is None or invitation is not None:
            count_registration(request)
        guesses = Guesses(request, of="enrolment tokens")
        is_guessed = invitation is None and policy in ("token", "jwt")
        if is_guessed:
            guesses.count()
        registration = clients.register_client(
            federated_model,
            credential=credential,
            enrolment_token=request.headers.get("FMA-Enrolment-Token"),
            enrolment_jwt=authentication.bearer_of(request),
            invitation=invitation,
            organisation=_claimed_organisation(request) if policy == "approval" else "",
            idempotency_key=key,
            key=_sent_key(request),
        )
        if is_guessed:
            guesses.give_back()
        client = registration.client
        answer = {
            "uuid": str(registration.credential),
            "id": str(client.pk),
            "public_key": client.public_key,
        }
        return Response(answer, headers={"Cache-Control": "no-store"})

    @extend_schema(
        summary="The newest aggregate; its weights as a URL",
        parameters=[WaitSerializer],
        responses={200: ModelAggregateSerializer, 204: NOTHING_NEWER},
    )
    @action(methods=["get"], detail=True, permission_classes=[IsUserOrClient])
    def get_latest_aggregate(self, request: Request, pk: str) -> HttpResponse:
        """`{}` when there is none. With `after` and `wait` it waits for a newer one; 204 when none came."""
        federated_model = self.get_object()
        newer = newer_aggregate(request, federated_model)
        if newer is not None and newer.aggregate is None:
            return nothing_yet([federated_model.pk], newer.wait_s)
        aggregate = latest_aggregate(federated_model) if newer is None else newer.aggregate
        return Response({} if aggregate is None else self._rendered(ModelAggregateSerializer, aggregate))

    @extend_schema(summary="The current artifact; its weights as a URL", responses=ModelArtifactSerializer)
    @action(methods=["get"], detail=True, permission_classes=[IsUserOrClient])
    def get_current_artifact(self, request: Request, pk: str) -> Response:
        """`{}` when nothing has been published."""
        artifact = self.get_object().current_artifact
        return Response({} if artifact is None else self._rendered(ModelArtifactSerializer, artifact))

    @extend_schema(
        summary="The newest weights to train from",
        parameters=[
            WaitSerializer,
            OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER),
            OpenApiParameter(
                "Range", str, OpenApiParameter.HEADER, description="For safetensors: one byte range."
            ),
        ],
        responses={
            (200, "application/json"): LatestModelSerializer,
            (200, SAFETENSORS): OpenApiTypes.BINARY,
            204: NOTHING_NEWER,
            304: OpenApiResponse(description="The caller has them."),
        },
    )
    @action(
        methods=["get"],
        detail=True,
        permission_classes=[IsUserOrClient],
        renderer_classes=[OrjsonRenderer, SafetensorsRenderer],
    )
    def get_latest_model(self, request: Request, pk: str) -> HttpResponseBase:
        """The weights of the newest aggregate, else of the current artifact (`aggregate` is null), else `{}`.

        As safetensors the bytes alone, the aggregate's id in the header `FMA-Aggregate`, and 204 when there are none.
        With `after` and `wait` it waits for a newer aggregate; 204 when none came.
        """
        federated_model = self.get_object()
        newer = newer_aggregate(request, federated_model)
        if newer is None:
            latest = latest_model(federated_model)
        elif newer.aggregate is None:
            return nothing_yet([federated_model.pk], newer.wait_s)
        else:
            latest = LatestModel(newer.aggregate, newer.aggregate.pk)
        if latest is None:
            return HttpResponse(status=204) if wants_safetensors(request) else Response({})
        latest.weights.federated_model = federated_model
        aggregate_id = "null" if latest.aggregate_id is None else str(latest.aggregate_id)
        return weights_response(
            request,
            latest.weights,
            envelope=(b'{"values":', f',"aggregate":{aggregate_id}}}'.encode()),
            headers={} if latest.aggregate_id is None else {"FMA-Aggregate": aggregate_id},
        )

    @extend_schema(
        summary="Give the model its first weights, as safetensors",
        request={SAFETENSORS: OpenApiTypes.BINARY},
        responses={201: ModelArtifactSerializer},
        parameters=[
            OpenApiParameter(
                "upload",
                OpenApiTypes.UUID,
                description="A complete upload that was begun for this model; without a body.",
            ),
            IDEMPOTENCY_KEY,
        ],
    )
    @action(methods=["post"], detail=True, parser_classes=[SafetensorsParser, InitialModelJsonParser])
    def initial_model(self, request: Request, pk: str) -> Response:
        """The weights become artifact 1.0.0. JSON weights are taken too. 409 once the model has weights."""
        federated_model = self.get_object()
        key = idempotency_key(request)
        if "upload" in request.query_params:
            artifact = finish_initial_model(_upload_of(request, federated_model), idempotency_key=key)
            return Response(self._rendered(ModelArtifactSerializer, artifact), status=201)
        body = request.data if isinstance(request.data, SafetensorsBody) else JsonBody(request.data)
        artifact = federated_models.set_initial_model(
            federated_model,
            body,
            once_key=None if key is None else (scope(request, f"initial model {federated_model.pk}"), key),
        )
        return Response(self._rendered(ModelArtifactSerializer, artifact), status=201)

    def _rendered(self, serializer: Any, rows: Any, many: bool = False) -> Any:
        return serializer(rows, many=many, context=self.get_serializer_context()).data


def _claimed_organisation(request: Request) -> str:
    serializer = NewRegistrationSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    return str(serializer.validated_data.get("organisation", ""))


def _sent_key(request: Request) -> SentKey | None:
    """The key in a body that is JSON; others were never read here."""
    is_json = request.content_type.partition(";")[0].strip() == "application/json"
    if not is_json or request.META.get("CONTENT_LENGTH") in (None, "", "0"):
        return None
    return sent_key(request.data, servers=server_names(request)) if isinstance(request.data, dict) else None


def _upload_of(request: Request, federated_model: FederatedModel) -> Upload:
    """The upload that the query names. Raises UnknownUpload, and DRF's ValidationError for a body beside it."""
    if request.data:
        raise ValidationError({"upload": ["The upload has all of the initial model: send no body."]})
    upload = find_upload(user_of(request), request.query_params["upload"])
    if upload.federated_model_id != federated_model.pk:
        raise UnknownUpload.of(str(upload.pk))
    return upload
