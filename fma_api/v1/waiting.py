"""`?after=<aggregate id>&wait=<seconds>`: an answer when there is something newer, instead of polling.

A waiter occupies one of the server's threads, so only some may wait at a time; who comes when all places are taken
is answered at once, as if its time were over.
"""

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from rest_framework import serializers
from rest_framework.request import Request

from fma_django import conf
from fma_django.models import FederatedModel, ModelAggregate
from fma_django.selectors.aggregates import latest_aggregate

LOOK_EVERY_S = 0.1
FoundT = TypeVar("FoundT")


class WaitSerializer(serializers.Serializer[None]):
    after = serializers.IntegerField(
        min_value=0, max_value=2**63 - 1, required=False, help_text="Only an aggregate with a larger id."
    )
    wait = serializers.FloatField(
        min_value=0, required=False, default=0.0, help_text="Seconds to wait for it; needs `after`."
    )


def asks_for_newer(request: Request) -> bool:
    return "after" in request.query_params


def newer_aggregate(request: Request, federated_model: FederatedModel) -> ModelAggregate | None:
    """The newest aggregate if it is newer than `after`, waiting for it as long as the request says and we allow."""
    query = WaitSerializer(data=request.query_params)
    query.is_valid(raise_exception=True)
    after: int = query.validated_data["after"]
    wait_s = seconds_to_wait(query.validated_data["wait"])
    return wait_for(lambda: _newer(federated_model, after), wait_s)


def seconds_to_wait(said_s: float) -> float:
    return min(said_s, float(conf.get("FMA_MAX_WAIT_SECONDS")))


def wait_for(look: Callable[[], FoundT | None], wait_s: float) -> FoundT | None:
    """What `look` finds within this time; it must be cheap, for it is asked ten times a second."""
    found = look()
    if found is not None or wait_s <= 0 or not _places().acquire(blocking=False):
        return found
    try:
        until = time.monotonic() + wait_s
        while found is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(LOOK_EVERY_S, left))
            found = look()
        return found
    finally:
        _places().release()


def _newer(federated_model: FederatedModel, after: int) -> ModelAggregate | None:
    found = latest_aggregate(federated_model)
    return found if found is not None and found.pk > after else None


@cache
def _places() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(max(1, conf.get("FMA_WEB_THREADS") * 3 // 4))
