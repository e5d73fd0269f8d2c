"""`POST model_updates/`: an update as it comes in, without what DRF brings between a request and its view.

The same callers, the same refusals, the same answer. A client is looked for in the one statement that reads all else.
"""

from functools import lru_cache
from typing import Any, cast

from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import get_script_prefix, reverse
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.request import Request
from rest_framework.serializers import ValidationError
from rest_framework.views import APIView

from fma_api.chunked_bodies import is_chunked, read_chunks
from fma_api.parsers import OrjsonParser, UpdateJsonParser, safetensors_body
from fma_api.problems import unsupported
from fma_api.renderers import SAFETENSORS, dumps
from fma_api.v1.authentication import CHALLENGE
from fma_api.v1.callers import user_of
from fma_api.v1.idempotency import idempotency_key
from fma_api.v1.known_queries import refuse_unknown_parameters
from fma_api.v1.unknown_names import shown as shown_name
from fma_api.v1.updates.early import refuse_early
from fma_api.v1.updates.facts import FACTS, METRICS_IN_META, SentFacts, facts_in_json, facts_in_query
from fma_api.v1.updates.signature import signature_of
from fma_core.errors import TruncatedBody
from fma_django import conf
from fma_django.accounts.grants import may_change_experiment
from fma_django.clients.consent import require_consent
from fma_django.clients.registration import find_client, hash_of
from fma_django.errors import NotPermitted, UnknownClient, UnknownModel
from fma_django.models import FederatedModel, ModelUpdate
from fma_django.models.update_signature import signer_of
from fma_django.record.queries.clients import clients_of
from fma_django.record.queries.visible import visible_to
from fma_django.record.weights import JsonBody, SafetensorsBody, WeightsBody
from fma_django.updates.in_parts import finish_update
from fma_django.updates.intake import Expected, Sender, accept, announce
from fma_django.updates.uploads import find_upload

JSON = "application/json"
# The body of a caller whom nobody has looked for yet is parsed up to here.
UNKNOWN_BYTES = 2**16


def receive(request: HttpRequest) -> HttpResponse:
    """Raises what makes a problem."""
    credential = request.META.get("HTTP_CLIENT_UUID")
    try:
        update = _of_user(request) if credential is None else _of_client(request, credential)
    except UnknownClient as error:
        raise _unauthenticated(AuthenticationFailed(error.message, code=error.code)) from error
    return HttpResponse(
        dumps(shown(update, request, to_client=credential is not None)), content_type=JSON, status=201
    )


def _of_client(request: HttpRequest, credential: str) -> ModelUpdate:
    credential_hash = hash_of(credential)
    if _names_an_upload(request):
        client = find_client(credential)
        request.client_id = client.pk  # type: ignore[attr-defined]  # for the log
        refuse_unknown_parameters(request)
        _refuse_facts_beside_upload(request)
        upload = find_upload(client, request.GET.get("upload", ""))
        return finish_update(upload, idempotency_key=idempotency_key(request))
    try:
        if (_size_bytes(request) > UNKNOWN_BYTES or is_chunked(request)) and _media_type(request) == JSON:
            find_client(credential)
            refuse_early(request, credential_hash, size_bytes=_size_bytes(request))
        key = idempotency_key(request)
        sent, body = _sent(request)
    except Exception:
        # A caller that nobody knows gets this answer before any other.
        find_client(credential)
        raise
    sender = Sender(sent.federated_model_id, credential_hash=credential_hash)
    try:
        try:
            expected = _announce(request, sender, sent, body, key)
        except UnknownClient:
            find_client(credential)  # the first use of a next credential
            expected = _announce(request, sender, sent, body, key)
    finally:
        request.client_id = sender.client_id  # type: ignore[attr-defined]  # for the log
    return accept(expected, body)


def _of_user(request: HttpRequest) -> ModelUpdate:
    """Take an update from a developer, who names the client and owns the model."""
    authenticated = _OfHeaders(request, authenticators=[kind() for kind in APIView.authentication_classes])
    try:
        user = user_of(authenticated)
    except AuthenticationFailed as error:
        raise _unauthenticated(error) from error
    if user is None:
        raise _unauthenticated(NotAuthenticated())
    if _names_an_upload(request):
        find_upload(None, request.GET.get("upload", ""))
    key = idempotency_key(request)
    sent, body = _sent(request)
    named = FederatedModel.objects.filter(pk=sent.federated_model_id).only("developer")
    federated_model = visible_to(user, named, as_member=False).first()
    if federated_model is None:
        raise UnknownModel.of(sent.federated_model_id)
    if not may_change_experiment(user, federated_model):
        raise NotPermitted("you may see this model, but not send updates to it")
    # A client that the developer does not see is none, so that an answer does not tell which there are.
    if sent.client_id is None or not clients_of(user).filter(pk=sent.client_id).exists():
        raise ValidationError({"client": ["A developer names a client by its public id."]})
    require_consent(federated_model, sent.client_id)
    sender = Sender(sent.federated_model_id, sent.client_id)
    return accept(_announce(request, sender, sent, body, key), body)


def _announce(
    request: HttpRequest, sender: Sender, sent: SentFacts, body: WeightsBody, key: str | None
) -> Expected:
    return announce(
        sender,
        sent.facts,
        _size_bytes(request),
        _coding(body),
        idempotency_key=key,
        signature=signature_of(request, sent.facts.base_aggregate_id),
    )


class _OfHeaders(Request):
    """A request whose caller is known by its headers; the check of a session's CSRF token reads no body either."""

    @property
    def POST(self) -> QueryDict:  # type: ignore[override]  # noqa: N802  # Django's name
        return QueryDict()


def _sent(request: HttpRequest) -> tuple[SentFacts, WeightsBody]:
    """The facts of an update and its body: safetensors unread, JSON read."""
    refuse_unknown_parameters(request)
    media_type = _media_type(request)
    read_chunks(request, read_bytes=conf.current().max_json_bytes if media_type == JSON else None)
    if request.META.get("CONTENT_LENGTH", "0") in ("", "0"):
        if media_type == SAFETENSORS:
            raise TruncatedBody(
                "the body is empty; safetensors begin with the size of their header", field="data"
            )
        sent = facts_in_json({})
    elif media_type == SAFETENSORS:
        return facts_in_query(request), safetensors_body(request, cast("Any", request))
    elif media_type == JSON:
        members = UpdateJsonParser().parse(cast("Any", request), parser_context={"request": request})
        _refuse_facts_in_query(request)
        sent = facts_in_json(members)
    else:
        raise unsupported(media_type, (JSON, SAFETENSORS))
    return sent, JsonBody(sent.data)


def _refuse_facts_in_query(request: HttpRequest) -> None:
    """Raises DRF's ValidationError: beside a JSON body, nobody reads them."""
    if request.META.get("QUERY_STRING") and (ignored := FACTS & request.GET.keys()):
        raise ValidationError(
            {name: ["The body is JSON: the facts of the update are members of it."] for name in ignored}
        )


def _refuse_facts_beside_upload(request: HttpRequest) -> None:
    """Raises DRF's ValidationError: what the upload was begun with holds, and nobody reads these."""
    read_chunks(request, read_bytes=UNKNOWN_BYTES if _media_type(request) == JSON else None)
    said = FACTS & request.GET.keys()
    if METRICS_IN_META in request.META:
        said |= {"metrics"}
    if _size_bytes(request):
        # Some libraries send `{}` where there is nothing to send.
        is_short_json = _media_type(request) == JSON and _size_bytes(request) <= UNKNOWN_BYTES
        members = (
            OrjsonParser().parse(cast("Any", request), parser_context={"request": request})
            if is_short_json
            else None
        )
        if not isinstance(members, dict):
            raise ValidationError({"upload": ["The upload has all of the update: send no body."]})
        said |= members.keys()
    if said:
        raise ValidationError(
            {
                shown_name(name): ["The facts of an update are said when its upload begins, and not here."]
                for name in said
            }
        )


def shown(update: ModelUpdate, request: HttpRequest, *, to_client: bool) -> dict[str, Any]:
    """The members that ClientModelUpdateSerializer and ModelUpdateSerializer show."""
    path = f"{_updates(get_script_prefix())}{update.pk}/weights/"
    members = {
        "id": update.pk,
        "client": str(update.client_id),
        "federated_model": update.federated_model_id,
        "round": update.round_number,
        "data": f"{request._current_scheme_host}{path}",  # type: ignore[attr-defined]
        "base_aggregate": update.base_aggregate_id,
        "num_examples": update.num_examples,
        "metrics": update.metrics,
        "sha256": update.sha256,
        "size_bytes": update.size_bytes,
        "created_on": update.created_on.isoformat().replace("+00:00", "Z"),
    }
    if not to_client:
        members |= {
            "status": update.status,
            "status_reason": update.status_reason,
            "applied_aggregate": update.applied_aggregate_id,
            "verdict": update.verdict,
            "verdict_by": update.verdict_by,
            "weight_used": update.weight_used,
            "step_norm": update.step_norm,
            "distance": update.distance,
            "signed_by": signer_of(update),
        }
    return members


@lru_cache
def _updates(script_prefix: str) -> str:
    """The path of `model_updates/`; looking it up takes a while, and it depends on nothing else."""
    return reverse("model_update-list")


def _names_an_upload(request: HttpRequest) -> bool:
    # Parsed only where it may be so: that takes longer than reading a header.
    return "upload=" in request.META.get("QUERY_STRING", "") and "upload" in request.GET


def _media_type(request: HttpRequest) -> str:
    return str(request.META.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()


def _size_bytes(request: HttpRequest) -> int:
    announced = request.META.get("CONTENT_LENGTH") or "0"
    return int(announced) if announced.isdecimal() and len(announced) < 20 else 0


def _coding(body: WeightsBody) -> str:
    return body.content_encoding if isinstance(body, SafetensorsBody) else ""


def _unauthenticated(
    error: AuthenticationFailed | NotAuthenticated,
) -> AuthenticationFailed | NotAuthenticated:
    error.auth_header = CHALLENGE  # type: ignore[union-attr]
    return error
