"""`?wait=<seconds>`: an answer when there is something new, instead of polling.

A view answers what there is now. When that is nothing, it answers `nothing_yet`, and the front (fma_api/front) asks the
view again as soon as something of the model has changed, or when the time is over.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from fma_api.front.responses import NothingYet
from fma_api.v1.ids import MAX_ID
from fma_django import conf, wakeups
from fma_django.models import FederatedModel, ModelAggregate
from fma_django.record.queries.aggregates import latest_aggregate


class Seconds(serializers.FloatField):
    """A finite number of seconds; Django REST framework takes "nan" and "inf" for numbers until its version 3.18."""

    def to_internal_value(self, data: Any) -> float:
        seconds: float = super().to_internal_value(data)
        if not math.isfinite(seconds):
            self.fail("invalid")
        return seconds


class WaitSerializer(serializers.Serializer[None]):
    after = serializers.IntegerField(
        min_value=0, max_value=MAX_ID, required=False, help_text="Only an aggregate with a larger id."
    )
    wait = Seconds(
        min_value=0, required=False, default=0.0, help_text="Seconds to wait for it; needs `after`."
    )


@dataclass(frozen=True)
class Newer:
    """The answer to `?after=&wait=`. aggregate: None when there is none yet."""

    aggregate: ModelAggregate | None
    wait_s: float


def newer_aggregate(request: Request, federated_model: FederatedModel) -> Newer | None:
    """None when the request asks for the newest one, whichever it is."""
    if "after" not in request.query_params:
        return None
    query = WaitSerializer(data=request.query_params)
    query.is_valid(raise_exception=True)
    if "after" not in query.validated_data:  # `?after=`: an empty member of a form is none
        raise serializers.ValidationError({"after": ["A valid integer is required."]})
    newest = latest_aggregate(federated_model)
    is_newer = newest is not None and newest.pk > query.validated_data["after"]
    return Newer(newest if is_newer else None, query.validated_data["wait"])


def nothing_yet(
    federated_model_ids: Iterable[int], wait_s: float, content: bytes = b"", **options: Any
) -> NothingYet:
    """The answer that is sent when no news of these models makes a better one in time; 204 without content."""
    return NothingYet(
        content,
        topics=map(wakeups.of_model, federated_model_ids),
        seconds=min(wait_s, conf.current().max_wait_s),
        status=200 if content else 204,
        **options,
    )
