"""The newest weights or aggregate for clients that ask over and over: one read, without DRF.

The view gives every other answer: weights as JSON, a range, those to developers, any refusal. An answer of this module
is the same as the view's.
"""

import math
from urllib.parse import parse_qsl

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from fma_api.renderers import SAFETENSORS, dumps
from fma_api.v1.aggregates.serializers import ModelAggregateSerializer
from fma_api.v1.waiting import nothing_yet
from fma_api.v1.weights import blob_response
from fma_core.errors import FMAError
from fma_django.clients.registration import hash_of
from fma_django.models import ModelAggregate
from fma_django.record.queries.latest_for_client import LatestForClient, latest_for_client


def latest_at_once(request: HttpRequest, federated_model_id: int) -> HttpResponseBase | None:
    """The newest weights for a client that asks for safetensors; None for what the view has to answer."""
    after_and_wait = _after_and_wait(request.META.get("QUERY_STRING", ""))
    if (
        after_and_wait is None
        or "HTTP_RANGE" in request.META
        or request.META.get("HTTP_ACCEPT") != SAFETENSORS
    ):
        return None
    try:
        known = _latest_for_caller(request, federated_model_id)
        if known is None or known.latest is None:
            return None
        after, wait_s = after_and_wait
        sha256, size_bytes, aggregate_id = known.latest
        if after is not None and (aggregate_id is None or aggregate_id <= after):
            return nothing_yet([federated_model_id], wait_s)
        response = blob_response(request, sha256, size_bytes)
    except (FMAError, DatabaseError):
        return None  # the view makes a problem of it
    if aggregate_id is not None:
        response["FMA-Aggregate"] = str(aggregate_id)
    return response


def newer_at_once(request: HttpRequest, federated_model_id: int) -> HttpResponseBase | None:
    """The aggregate after the one that a client has; None for what the view has to answer."""
    after, wait_s = _after_and_wait(request.META.get("QUERY_STRING", "")) or (None, 0.0)
    if after is None or request.META.get("HTTP_ACCEPT", "*/*") not in ("*/*", "application/json"):
        return None
    try:
        known = _latest_for_caller(request, federated_model_id)
        if known is None:
            return None
        aggregate_id = None if known.latest is None else known.latest.aggregate_id
        if aggregate_id is None or aggregate_id <= after:
            return nothing_yet([federated_model_id], wait_s)
        aggregate = ModelAggregate.objects.filter(pk=aggregate_id).first()
    except (FMAError, DatabaseError):
        return None  # the view makes a problem of it
    if aggregate is None:
        return None
    rendered = ModelAggregateSerializer(aggregate, context={"request": request}).data
    return HttpResponse(dumps(rendered), content_type="application/json")


def _latest_for_caller(request: HttpRequest, federated_model_id: int) -> LatestForClient | None:
    credential = request.META.get("HTTP_CLIENT_UUID")
    if request.method != "GET" or credential is None or "HTTP_TRANSFER_ENCODING" in request.META:
        return None
    latest = latest_for_client(federated_model_id, hash_of(credential))
    if latest is not None:
        request.client_id = latest.client_id  # type: ignore[attr-defined]  # for the log
    return latest


def _after_and_wait(query: str) -> tuple[int | None, float] | None:
    """None for a query that the view has to look at."""
    members = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    after, wait = members.pop("after", None), members.pop("wait", "0")
    if members or (after is not None and not (after.isdecimal() and len(after) < 19)):
        return None
    try:
        wait_s = float(wait)
    except ValueError:
        return None
    if not (math.isfinite(wait_s) and wait_s >= 0):
        return None
    return None if after is None else int(after), wait_s
