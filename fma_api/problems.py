"""Every error leaves as RFC 9457 problem details with a stable `code`.

FMA's clients read `detail`, and lists of messages under the names of fields; both are members of the same object.
One table says which HTTP status each branch of the error tree becomes.
"""

import re
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, TypeVar

import structlog
from django.core.exceptions import DisallowedHost, PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.http.request import split_domain_port
from django.utils.html import escape
from django.views import csrf
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import set_rollback

from fma_api import errors as api_errors
from fma_core import errors as core
from fma_core.arrays.codecs import zstd
from fma_core.errors import FMAError
from fma_django import errors as record
from fma_django.storage import errors as storage

log = structlog.get_logger(__name__)

ResponseT = TypeVar("ResponseT", bound=HttpResponseBase)

CONTENT_TYPE = "application/problem+json"
RESERVED = frozenset({"type", "title", "status", "detail", "code", "instance", "errors"})

# The first ancestor found in this table decides.
STATUS: Mapping[type[FMAError], int] = {
    core.TooLarge: 413,
    core.MalformedJson: 400,
    core.MalformedSafetensors: 400,
    core.MalformedZstd: 400,
    core.TruncatedBody: 400,
    core.UnsupportedCoding: 415,
    core.InvalidWeights: 422,
    core.SpecMismatch: 422,
    core.InvalidSpec: 400,
    core.InvalidPart: 400,
    core.InvalidStrategy: 400,
    core.InvalidQuestion: 400,
    core.InvalidStatistics: 422,
    core.InvalidKey: 400,
    core.InvalidSignature: 403,
    core.InvalidCertificate: 422,
    record.NotRegistered: 403,
    record.RegistrationClosed: 403,
    record.WrongEnrolmentToken: 403,
    record.InvalidInvitation: 403,
    record.AwaitingApproval: 403,
    record.NoConsent: 403,
    record.ModelFull: 409,
    record.InvalidEnrolmentJwt: 403,
    record.UnknownClient: 403,
    record.ClientMismatch: 403,
    record.ClientHasKey: 409,
    record.KeyTaken: 409,
    record.AccountTaken: 409,
    record.SignatureRequired: 403,
    record.SignatureReplayed: 409,
    record.ModelHasHistory: 409,
    record.NoInitialModel: 409,
    record.NotVerifiable: 409,
    record.ExperimentEnded: 409,
    record.NotSelected: 403,
    record.LateUpdate: 409,
    record.RoundFull: 409,
    record.TooFewContributors: 409,
    record.IsolatesContributors: 409,
    record.EvaluationClosed: 409,
    record.ResultTaken: 409,
    record.InvalidTransition: 409,
    record.LeaseLost: 409,
    record.NotPermitted: 403,
    record.PasswordLoginOff: 403,
    record.SecondFactorRequired: 403,
    record.WrongSecondFactor: 403,
    record.LastOwner: 409,
    record.StillInUse: 409,
    record.IdempotencyKeyReused: 422,
    record.IdempotencyKeyExpired: 409,
    record.RateExceeded: 429,
    record.TooManyUploads: 429,
    record.UploadBusy: 429,
    record.UnknownUpload: 404,
    record.UploadElsewhere: 409,
    record.WrongOffset: 409,
    record.UploadIncomplete: 409,
    record.ChecksumMismatch: 460,  # of tus
    record.BaseAggregateRequired: 422,
    record.Refused: 400,
    record.ClusterUnavailable: 503,
    record.WorkersKilled: 503,
    record.StoreNotOurs: 503,
    record.MemoryInUse: 503,
    record.JsonProcessEnded: 503,
    record.KeysUnavailable: 503,
    storage.BlobMissing: 500,
    storage.StorageFull: 507,
    storage.StorageUnavailable: 503,
    api_errors.LengthRequired: 411,
    api_errors.UnsupportedTus: 412,
    api_errors.RangeNotSatisfiable: 416,
    api_errors.InvalidHeader: 400,
    FMAError: 500,
}

# A full disk is not emptied in a moment.
RETRY_AFTER_S = {503: 5, 507: 60}

# The words of SQLite, and of the system that PostgreSQL runs on.
NO_ROOM = re.compile("disk is full|No space left")

OURS = "The server cannot do this now; its log says more."


def handle(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """DRF's exception handler. None for what is nobody's fault but ours: Django then answers 500."""
    headers: dict[str, str] = {}
    auth_header = getattr(error, "auth_header", None)
    wait_s = getattr(error, "wait", None)
    if isinstance(error, Http404):
        error = exceptions.NotFound(_what_is_missing(error, context))
    elif type(error) is exceptions.UnsupportedMediaType and "view" in context:
        view = context["view"]
        error = unsupported(
            str(context["request"].content_type), [parser.media_type for parser in view.get_parsers()]
        )
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if isinstance(error, FMAError):
        problem = _of_fma_error(error)
        if problem["status"] in RETRY_AFTER_S:
            headers["Retry-After"] = str(RETRY_AFTER_S[problem["status"]])
        if "retry_after_s" in error.facts:
            headers["Retry-After"] = str(ceil(error.facts["retry_after_s"]))
        if isinstance(error, core.UnsupportedCoding):
            headers["Accept-Encoding"] = zstd.CODING
        if isinstance(error, api_errors.RangeNotSatisfiable):
            headers["Content-Range"] = f"bytes */{error.facts['size_bytes']}"
        if problem["status"] >= 500:
            log.error("request_failed", code=error.code, detail=error.message)
            # Paths and addresses of the server's own are for its log.
            problem["detail"] = OURS
    elif isinstance(error, OperationalError):
        status_code, code = (
            (507, "storage_full") if NO_ROOM.search(str(error)) else (503, "database_unavailable")
        )
        log.error("request_failed", code=code, detail=str(error))
        problem = problem_of(status_code, code, OURS)
        headers["Retry-After"] = str(RETRY_AFTER_S[status_code])
    elif isinstance(error, exceptions.APIException):
        problem = _of_api_exception(error)
        if auth_header:
            headers["WWW-Authenticate"] = auth_header
        if wait_s is not None:
            headers["Retry-After"] = str(int(wait_s) + 1)
    else:
        return None
    set_rollback()
    return Response(problem, status=problem["status"], headers=headers, content_type=CONTENT_TYPE)


def unsupported(media_type: str, taken: Sequence[str]) -> exceptions.UnsupportedMediaType:
    """The refusal of a body of another kind than those that are taken."""
    found = f"a body of {media_type[:100]}" if media_type else "a body without Content-Type"
    return exceptions.UnsupportedMediaType(
        media_type, detail=f"{found} is not taken here; send one of: {', '.join(taken)}"
    )


def _what_is_missing(error: Http404, context: Mapping[str, Any]) -> str:
    """Name the object of the path that is not there, or not for this caller."""
    kwargs = context.get("kwargs") or {}
    if not kwargs:
        return "Not found."
    kind = re.fullmatch(r"No (\w+) matches the given query\.", str(error))
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", kind[1]).lower() if kind else "object"
    ids = " of ".join(str(value)[:40] for value in reversed(kwargs.values()))
    return f"There is no {words} {ids}, or not for you."


def as_http(error: Exception) -> HttpResponse:
    """The same for a view that is not DRF's. Raises the error itself where `handle` has no answer."""
    answered = handle(error, {})
    if answered is None:
        raise error
    return rendered(answered)


def rendered(answered: Response) -> HttpResponse:
    """The answer of `handle` as JSON, for a view whose renderers make none."""
    headers = {name: value for name, value in answered.items() if name != "Content-Type"}
    return _json_response(answered.data, headers)


def problem_of(
    status_code: int, code: str, detail: str, fields: Mapping[str, Sequence[Any]] | None = None
) -> dict[str, Any]:
    """The members of a problem. fields: what is wrong, by the name of the input."""
    members: dict[str, Any] = {
        "type": f"urn:fma:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status_code,
        "detail": detail,
        "code": code,
    }
    if fields:
        members["errors"] = dict(fields)
        members.update({name: messages for name, messages in fields.items() if name not in RESERVED})
    return members


def status_of(error: FMAError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page_or_problem(request, 404, "not_found", f"There is no path {request.path[:200]} here.")


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if isinstance(exception, DisallowedHost):
        host = request.META.get("HTTP_HOST", "")[:200]
        detail = (
            f"The host {host!r} is not among those of the setting FMA_ALLOWED_HOSTS."
            if split_domain_port(host)[0]
            else f"The host {host!r} is not a host name (RFC 1123): letters, digits, '-' and '.', and a port."
        )
        return _page_or_problem(request, 400, "unknown_host", detail)
    return _page_or_problem(request, 400, "bad_request", "The request is malformed.")


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _page_or_problem(
        request, 403, "permission_denied", "You do not have permission to perform this action."
    )


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's page, which says to a person how it came about."""
    return with_code(csrf.csrf_failure(request, reason), "csrf_failed")


def too_many_logins(request: HttpRequest, error: exceptions.Throttled) -> HttpResponse:
    """The answer to a login or a guess that a limit refuses, outside the API's views."""
    response = _page_or_problem(request, 429, "throttled", str(error.detail))
    response["Retry-After"] = str(ceil(getattr(error, "wait", None) or 1))
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    return _page_or_problem(
        request, 500, "internal_error", "The server met an unexpected error; its log says more."
    )


def _page_or_problem(request: HttpRequest, status_code: int, code: str, detail: str) -> HttpResponse:
    """Outside the API's views. A page for a browser, a problem for everybody else."""
    if "text/html" in request.headers.get("Accept", "") and not request.path_info.startswith("/api"):
        page = f"<!doctype html><title>{status_code}</title><h1>{escape(detail)}</h1>"
        return with_code(HttpResponse(page, status=status_code), code)
    return _json_response(problem_of(status_code, code, detail))


def _json_response(problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> HttpResponse:
    from fma_api.renderers import dumps

    response = HttpResponse(
        dumps(problem), status=problem["status"], content_type=CONTENT_TYPE, headers=dict(headers or {})
    )
    return with_code(response, problem["code"])


def with_code(response: ResponseT, code: str) -> ResponseT:
    """The response, which tells the request log its code."""
    response.problem_code = code  # type: ignore[attr-defined]
    return response


def _of_fma_error(error: FMAError) -> dict[str, Any]:
    field = error.facts.get("field")
    fields = {field: [error.message]} if field else None
    return problem_of(status_of(error), error.code, error.message, fields)


def _of_api_exception(error: exceptions.APIException) -> dict[str, Any]:
    if isinstance(error, exceptions.ValidationError):
        fields: dict[str, Any] = _with_text_keys(
            error.detail if isinstance(error.detail, dict) else {"non_field_errors": error.detail}
        )
        name, first = next(iter(fields.items()), ("", ""))
        detail = f"{name}: {_first_message(first)}"
        return problem_of(status.HTTP_400_BAD_REQUEST, "invalid", detail, fields)
    code = getattr(error.detail, "code", None) or error.default_code
    return problem_of(error.status_code, str(code), str(error.detail))


def _with_text_keys(errors: Any) -> Any:
    """Make keys texts: members of a list are named by their numbers, and JSON has only texts as keys."""
    if isinstance(errors, dict):
        return {str(key): _with_text_keys(member) for key, member in errors.items()}
    return errors


def _first_message(errors: Any) -> str:
    while isinstance(errors, (list, dict)) and errors:
        errors = next(iter(errors.values())) if isinstance(errors, dict) else errors[0]
    return str(errors)
