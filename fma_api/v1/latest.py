"""`get_latest_model/` as clients ask for it over and over: answered after one read, without what DRF brings.

Every other answer (JSON, a range, a developer's, any refusal) is the view's; whatever is answered here is what the view
would have said.
"""

import math
from urllib.parse import parse_qsl

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from fma_api.renderers import SAFETENSORS
from fma_api.v1.waiting import keep
from fma_api.v1.weights import blob_response
from fma_core.errors import FMAError
from fma_django.selectors.latest_for_client import latest_for_client
from fma_django.services.clients import hash_of


def latest_at_once(request: HttpRequest, federated_model_id: int) -> HttpResponseBase | None:
    """The answer to a client that asks for safetensors; None for what the view has to answer."""
    credential = request.META.get("HTTP_CLIENT_UUID")
    asks_for_this = (
        request.method == "GET"
        and credential is not None
        and request.META.get("HTTP_ACCEPT") == SAFETENSORS
        and "HTTP_RANGE" not in request.META
        and "HTTP_TRANSFER_ENCODING" not in request.META
    )
    asked = _after_and_wait(request.META.get("QUERY_STRING", ""))
    if not asks_for_this or credential is None or asked is None:
        return None
    try:
        found = latest_for_client(federated_model_id, hash_of(credential))
        if found is None or found.latest is None:
            return None
        request.user = found.client  # type: ignore[assignment]  # as for DRF; the log says who it was
        after, wait_s = asked
        weights, aggregate_id = found.latest.weights, found.latest.aggregate_id
        if after is not None and (aggregate_id is None or aggregate_id <= after):
            return keep(HttpResponse(status=204), [federated_model_id], wait_s)
        response = blob_response(request, weights.sha256, weights.size_bytes)
    except (FMAError, DatabaseError):
        return None  # the view makes a problem of it
    if aggregate_id is not None:
        response["FMA-Aggregate"] = str(aggregate_id)
    return response


def _after_and_wait(query: str) -> tuple[int | None, float] | None:
    """None for a query that the view has to look at."""
    said = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    after, wait = said.pop("after", None), said.pop("wait", "0")
    if said or (after is not None and not (after.isdecimal() and len(after) < 19)):
        return None
    try:
        wait_s = float(wait)
    except ValueError:
        return None
    if not (math.isfinite(wait_s) and wait_s >= 0):
        return None
    return None if after is None else int(after), wait_s
