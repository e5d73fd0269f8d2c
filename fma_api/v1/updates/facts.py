"""The facts of an update in a request, beside its weights.

Nearly all facts are valid, which a few lines check. All others go to the serializer, which names the fault: it takes
longer than everything else that a small update needs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from django.http import HttpRequest, QueryDict
from rest_framework.serializers import ValidationError
from rest_framework.utils import json

from fma_api.v1.ids import MAX_ID
from fma_api.v1.updates.serializers import NewModelUpdateSerializer, UpdateFactsSerializer
from fma_core.aggregation.aggregators.aggregator import MAX_NUM_EXAMPLES
from fma_django.updates.intake import UpdateFacts

METRICS = "FMA-Metrics"
"""The header of an update's metrics: access logs show the query, and these numbers belong in none."""
METRICS_IN_META = "HTTP_FMA_METRICS"
FACTS = frozenset(UpdateFactsSerializer().fields)
MEMBERS = frozenset(NewModelUpdateSerializer().fields)
WHOLE = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class SentFacts:
    """client_id: whom a developer names. data: weights as JSON, of a body that is JSON."""

    federated_model_id: int
    facts: UpdateFacts
    client_id: UUID | None = None
    data: Any = None


def facts_in_query(request: HttpRequest) -> SentFacts:
    """Read the facts of an update whose body is bytes: the metrics in their header, or all of them in the query.

    Raises DRF's ValidationError.
    """
    query = request.META.get("QUERY_STRING", "")
    members: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True)) if query.isascii() else {}
    if METRICS_IN_META in request.META:
        if "metrics" in request.GET:
            raise ValidationError(
                {"metrics": [f"The query and {METRICS} both have them: one place is enough."]}
            )
        members["metrics"] = metrics_in_header(request)
    try:
        for name in ("federated_model", "base_aggregate", "num_examples"):
            if name in members and WHOLE.fullmatch(members[name]):
                members[name] = int(members[name])
        if "metrics" in members:
            members["metrics"] = json.loads(members["metrics"])
    except (ValueError, RecursionError):
        return _checked(UpdateFactsSerializer(data=query_and_header(request)))
    return _plain(members) or _checked(UpdateFactsSerializer(data=query_and_header(request)))


def query_and_header(request: HttpRequest) -> QueryDict:
    """The query of a request, with the metrics of the header in it."""
    if METRICS_IN_META not in request.META:
        return request.GET
    facts = request.GET.copy()
    facts["metrics"] = metrics_in_header(request)
    return facts


def metrics_in_header(request: HttpRequest) -> str:
    """The JSON in the header. Servers give the bytes of a header as Latin-1."""
    text: str = request.META[METRICS_IN_META]
    try:
        return text if text.isascii() else text.encode("latin-1").decode()
    except UnicodeError:
        return text


def facts_in_json(body: object) -> SentFacts:
    """Read the facts and the weights of a body that is JSON. Raises DRF's ValidationError."""
    if isinstance(body, dict) and body.get("data") is not None and body.keys() <= MEMBERS:
        plain = _plain(body, data=body["data"])
        if plain is not None:
            return plain
    return _checked(NewModelUpdateSerializer(data=body))


def _plain(members: Mapping[str, Any], *, data: Any = None) -> SentFacts | None:
    """The facts, if they are valid and a client's own; None leaves all others to the serializer."""
    model, base = members.get("federated_model"), members.get("base_aggregate")
    num_examples, metrics = members.get("num_examples", 1), members.get("metrics")
    if (
        type(model) is int
        and 1 <= model <= MAX_ID
        and (base is None or (type(base) is int and 0 <= base <= MAX_ID))
        and type(num_examples) is int
        and 1 <= num_examples <= MAX_NUM_EXAMPLES
        and (metrics is None or type(metrics) is dict)
        and members.get("client") is None
    ):
        return SentFacts(model, UpdateFacts(base, num_examples, metrics or {}), data=data)
    return None


def _checked(serializer: UpdateFactsSerializer) -> SentFacts:
    serializer.is_valid(raise_exception=True)
    members = serializer.validated_data
    facts = UpdateFacts(members.get("base_aggregate"), members["num_examples"], members.get("metrics") or {})
    return SentFacts(members["federated_model"], facts, members.get("client"), members.get("data"))
