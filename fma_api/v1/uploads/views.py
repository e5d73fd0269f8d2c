"""`uploads/`: large updates and initial models in parts, so that a cut costs no more than what was on its way.

tus 1.0.0 (https://tus.io/protocols/resumable-upload) with its extensions creation, expiration, checksum and
termination. The request that begins an upload names the coding and the digest of the whole in HTTP's own headers, as in
draft-ietf-httpbis-resumable-upload.
"""

import base64
import json
from typing import Any, ClassVar, TypedDict, cast

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, UnreadablePostError
from django.urls import reverse
from django.utils.http import http_date
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers, viewsets
from rest_framework.exceptions import NotFound, UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import ValidationError

from fma_api.errors import InvalidHeader, UnsupportedTus
from fma_api.parsers import content_digest
from fma_api.v1.announced_bodies import AnnouncedBodies
from fma_api.v1.callers import IsClient, IsUser, IsUserOrClient, user_of
from fma_api.v1.idempotency import IDEMPOTENCY_KEY, idempotency_key
from fma_api.v1.ids import MAX_ID, UUID
from fma_api.v1.known_queries import refuse_unknown_parameters
from fma_api.v1.unknown_names import shown
from fma_api.v1.updates.facts import FACTS, METRICS, query_and_header
from fma_api.v1.updates.serializers import UpdateFactsSerializer
from fma_api.v1.updates.signature import SIGNATURE_HEADER, signature_text
from fma_api.v1.uploads.serializers import UploadSerializer
from fma_django import conf
from fma_django.accounts.grants import may_change_experiment
from fma_django.errors import NotPermitted, UnknownModel, UnknownUpload
from fma_django.experiments.initial_model_in_parts import add_to_initial_model, begin_initial_model
from fma_django.models import Client, FederatedModel, Upload
from fma_django.record.queries.visible import visible_to
from fma_django.updates.in_parts import add_to_update, begin_update
from fma_django.updates.intake import UpdateFacts
from fma_django.updates.uploads import Caller, give_up_upload, uploads_of

TUS = "1.0.0"
PART = "application/offset+octet-stream"
OFFSET = OpenApiParameter(
    "Upload-Offset",
    int,
    OpenApiParameter.HEADER,
    required=True,
    description="The number of bytes that have arrived.",
)
RESUMABLE = OpenApiParameter(
    "Tus-Resumable",
    str,
    OpenApiParameter.HEADER,
    required=True,
    enum=[TUS],
    description="The version of tus.",
)
INITIAL_MODEL = "initial_model"
NOTHING = OpenApiResponse(description="No content.")


class Announced(TypedDict):
    """The whole of an upload, as its headers announce it."""

    size_bytes: int
    content_encoding: str
    sha256: str
    idempotency_key: str | None


@extend_schema_view(
    create=extend_schema(
        summary="Begin an upload of a large update, or of an initial model",
        request={"application/json": UpdateFactsSerializer},
        responses={201: UploadSerializer},
        parameters=[
            OpenApiParameter("federated_model", int, description="The model of an update; for clients."),
            OpenApiParameter(
                INITIAL_MODEL,
                int,
                description="The model that gets its first weights, instead of all facts of an update; "
                "for its developer.",
            ),
            OpenApiParameter("base_aggregate", int),
            OpenApiParameter("num_examples", int),
            OpenApiParameter(
                "metrics", str, deprecated=True, description="A JSON object; queries are in logs."
            ),
            OpenApiParameter(
                METRICS, str, OpenApiParameter.HEADER, description="The metrics, a JSON object."
            ),
            RESUMABLE,
            OpenApiParameter("Upload-Length", int, OpenApiParameter.HEADER, required=True),
            OpenApiParameter(
                "Content-Encoding",
                str,
                OpenApiParameter.HEADER,
                description="Coding of the whole: `zstd`, or none.",
            ),
            OpenApiParameter(
                "Repr-Digest",
                str,
                OpenApiParameter.HEADER,
                description="Digest of the whole as it travels: RFC 9530, sha-256.",
            ),
            SIGNATURE_HEADER,
            IDEMPOTENCY_KEY,
        ],
    ),
    retrieve=extend_schema(summary="The progress of an upload", responses=UploadSerializer),
    partial_update=extend_schema(
        summary="Send the next part",
        request={PART: OpenApiTypes.BINARY},
        responses={204: NOTHING},
        parameters=[
            RESUMABLE,
            OFFSET,
            OpenApiParameter(
                "Upload-Checksum",
                str,
                OpenApiParameter.HEADER,
                description="Checksum of this part: `sha256 <base64>`.",
            ),
        ],
    ),
    destroy=extend_schema(summary="Abandon an upload", responses={204: NOTHING}, parameters=[RESUMABLE]),
)
class UploadViewSet(AnnouncedBodies, viewsets.GenericViewSet[Upload]):
    permission_classes = (IsUserOrClient,)
    serializer_class = UploadSerializer
    filter_backends = ()
    queryset = Upload.objects.select_related("federated_model", "client")
    lookup_value_regex = UUID
    http_method_names = ["post", "get", "head", "patch", "delete", "options"]
    tus: ClassVar[dict[str, str]] = {"Tus-Resumable": TUS, "Cache-Control": "no-store"}

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        # tus has this header for networks that let through nothing but GET and POST.
        if request.method == "POST" and "X-HTTP-Method-Override" in request.headers:
            request.method = request.headers["X-HTTP-Method-Override"].upper()
        return super().initialize_request(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method not in {"GET", "HEAD", "OPTIONS"} and request.headers.get("Tus-Resumable") != TUS:
            raise UnsupportedTus(f"uploads speak tus {TUS}: send Tus-Resumable: {TUS}")

    def get_permissions(self) -> Any:
        if self.action == "create":
            return [IsUser() if INITIAL_MODEL in self.request.query_params else IsClient()]
        return super().get_permissions()

    def check_permissions(self, request: Request) -> None:
        if self.action == "create" and user_of(request) is not None:
            # Before "for clients, not for users": a misspelt initial_model is told of.
            refuse_unknown_parameters(request._request)
        super().check_permissions(request)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        finished = super().finalize_response(request, response, *args, **kwargs)
        for name, value in self.tus.items():
            finished[name] = value
        if finished.status_code == 412:
            finished["Tus-Version"] = TUS
        return finished

    def get_queryset(self) -> QuerySet[Upload]:
        caller = cast("Caller", self.request.user)
        return visible_to(caller, uploads_of(caller))

    def get_object(self) -> Upload:
        try:
            return super().get_object()
        except Http404 as error:
            raise UnknownUpload.of(self.kwargs["pk"]) from error

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Response:
        """The version and the extensions of tus that are spoken here."""
        return Response(
            status=204,
            headers={
                "Tus-Version": TUS,
                "Tus-Extension": "creation,expiration,checksum,termination",
                "Tus-Checksum-Algorithm": "sha256",
                "Tus-Max-Size": str(conf.current().max_update_bytes),
            },
        )

    def create(self, request: Request) -> Response:
        """An upload that would be refused in the end is refused now. Then `PATCH` brings the bytes, and
        `POST model_updates/?upload=<id>` makes them an update, `POST models/<id>/initial_model/?upload=<id>` the first
        weights of a model."""
        announced: Announced = {
            "size_bytes": _number(request, "Upload-Length", at_least=1),
            "content_encoding": request.headers.get("Content-Encoding", ""),
            "sha256": content_digest(request.headers.get("Repr-Digest"), name="Repr-Digest") or "",
            "idempotency_key": idempotency_key(request),
        }
        user = user_of(request)
        if user is None:
            upload = _begin_update(request, announced)
        else:
            upload = begin_initial_model(_model_of(request, user), user, **announced)
        answer = self.get_serializer(upload).data
        where = reverse("upload-detail", args=[upload.pk])
        return Response(
            answer, status=201, headers={"Location": where, **_progress(upload, answer["offset"])}
        )

    def retrieve(self, request: Request, pk: str) -> Response:
        upload = self.get_object()
        answer = self.get_serializer(upload).data
        return Response(
            answer,
            headers={"Upload-Length": str(upload.size_bytes), **_progress(upload, answer["offset"])},
        )

    def partial_update(self, request: Request, pk: str) -> Response:
        """The bytes that arrive are kept, however the request ends, unless `Upload-Checksum` is of other bytes."""
        if request.content_type != PART:
            raise UnsupportedMediaType(request.content_type or "none")
        upload = self.get_object()
        user = user_of(request)
        if user is not None:
            _require_may_change(user, upload.federated_model)

        def read(size: int) -> bytes:
            try:
                piece: bytes = request._request.read(size)
            except UnreadablePostError:
                return b""  # the sender went away
            return piece

        add = add_to_update if upload.developer_id is None else add_to_initial_model
        offset = add(
            upload,
            read,
            at=_number(request, "Upload-Offset"),
            length=_number(request, "Content-Length") if request.META.get("CONTENT_LENGTH") else 0,
            sha256=_checksum(request.headers.get("Upload-Checksum")),
        )
        return Response(status=204, headers=_progress(upload, offset))

    def destroy(self, request: Request, pk: str) -> Response:
        give_up_upload(self.get_object())
        return Response(status=204)


def _begin_update(request: Request, announced: Announced) -> Upload:
    serializer = UpdateFactsSerializer(data=_facts(request))
    serializer.is_valid(raise_exception=True)
    validated = serializer.validated_data
    federated_model = FederatedModel.objects.filter(pk=validated["federated_model"]).first()
    if federated_model is None:
        raise UnknownModel.of(validated["federated_model"])
    facts = UpdateFacts(
        validated.get("base_aggregate"), validated["num_examples"], validated.get("metrics") or {}
    )
    signature = signature_text(request._request, announced["sha256"], digest_header="Repr-Digest")
    return begin_update(
        federated_model, cast("Client", request.user), facts=facts, signature=signature, **announced
    )


def _model_of(request: Request, user: User) -> FederatedModel:
    """The model that gets its first weights. Raises what `models/<id>/initial_model/` does for it."""
    said = query_and_header(request._request).keys() & FACTS
    if request.META.get("CONTENT_LENGTH") not in (None, "", "0") and request.content_type != PART:
        said |= request.data.keys() if isinstance(request.data, dict) else {INITIAL_MODEL}
    if said:
        raise ValidationError(
            {name: ["An initial model has no facts beside it: send no body."] for name in said}
        )
    asked = request.query_params[INITIAL_MODEL]
    model_id = serializers.IntegerField(min_value=1, max_value=MAX_ID)
    try:
        pk = model_id.run_validation(asked)
    except ValidationError as error:
        raise ValidationError({INITIAL_MODEL: error.detail}) from error
    federated_model = visible_to(user, FederatedModel.objects.filter(pk=pk), as_member=False).first()
    if federated_model is None:
        raise NotFound(f"There is no federated model {pk}, or not for you.")
    _require_may_change(user, federated_model)
    return federated_model


def _require_may_change(user: User, federated_model: FederatedModel) -> None:
    if not may_change_experiment(user, federated_model):
        raise NotPermitted("you may see this model, but not change it")


def _facts(request: Request) -> Any:
    """The facts of an update: of the query, the header of the metrics, and a JSON body, which has room for more."""
    if request.META.get("CONTENT_LENGTH") in (None, "", "0") or request.content_type == PART:
        return query_and_header(request._request)
    body = request.data
    if not isinstance(body, dict):
        raise ValidationError("The facts of an update are a JSON object.")
    query: dict[str, Any] = query_and_header(request._request).dict()
    if "metrics" in query:
        try:
            query["metrics"] = json.loads(query["metrics"])
        except (ValueError, RecursionError):
            raise ValidationError({"metrics": ["Metrics are a JSON object."]}) from None
    for name in body:
        if name not in FACTS:
            raise ValidationError({shown(name): ["This is no fact of an update."]})
        if name in query:
            raise ValidationError({name: ["The query, or a header, has it too: one place is enough."]})
    return {**query, **body}


def _progress(upload: Upload, offset: int) -> dict[str, str]:
    return {"Upload-Offset": str(offset), "Upload-Expires": http_date(upload.expires_on.timestamp())}


def _number(request: Request, name: str, *, at_least: int = 0) -> int:
    value = request.headers.get(name, "")
    if not (value.isascii() and value.isdecimal() and len(value) <= 18 and int(value) >= at_least):
        raise InvalidHeader(f"{name} must be a number of bytes, {at_least} or more; found {value[:40]!r}")
    return int(value)


def _checksum(header: str | None) -> bytes | None:
    if header is None:
        return None
    algorithm, _, value = header.strip().partition(" ")
    try:
        digest = base64.b64decode(value, validate=True)
    except ValueError:  # binascii.Error, or characters beyond ASCII
        digest = b""
    if algorithm != "sha256" or len(digest) != 32:
        raise InvalidHeader(f"Upload-Checksum looks like sha256 <base64>; found {header[:100]!r}")
    return digest
