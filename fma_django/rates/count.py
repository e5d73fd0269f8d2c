"""Taking an update from the limits of its client and its model, or saying when to come again."""

from uuid import UUID

import structlog

from fma_django import conf
from fma_django.errors import RateExceeded
from fma_django.rates import in_redis
from fma_django.rates.cost import Cost
from fma_django.rates.in_process import InProcess

log = structlog.get_logger(__name__)

in_process = InProcess()

Rate = tuple[int, int]
"""How many in how many seconds."""

SETTINGS = ("FMA_CLIENT_UPDATE_RATE", "FMA_CLIENT_BYTE_RATE", "FMA_MODEL_UPDATE_RATE", "FMA_MODEL_BYTE_RATE")


def count_update(federated_model_id: int, client_id: UUID, size_bytes: int) -> None:
    """One update of so many bytes, that is about to travel. Raises RateExceeded, and counts nothing then.

    Only of a client that is registered with the model: nobody else may use up what a model takes.
    """
    rates: list[Rate | None] = [conf.get(setting) for setting in SETTINGS]
    if not any(rates):
        return
    whose = (client_id, client_id, federated_model_id, federated_model_id)
    wait_s = _take(
        [
            Cost(f"{setting}:{of}", number * rate[1] / rate[0], rate[1])
            for setting, rate, of, number in zip(
                SETTINGS, rates, whose, (1, size_bytes, 1, size_bytes), strict=True
            )
            if rate is not None
        ]
    )
    if wait_s > 0:
        raise RateExceeded(
            "this client, or its model, has sent as much as it may in a time; "
            f"the next update is taken in {wait_s:.0f} s",
            retry_after_s=wait_s,
        )


def _take(costs: list[Cost]) -> float:
    url: str = conf.get("FMA_BROKER_URL")
    if url:
        from redis import RedisError

        try:
            return in_redis.take(url, costs)
        except RedisError as error:
            # A limit that each process counts alone is nearer to what was asked than none, and than no updates at all.
            log.warning("rates_counted_alone", error=repr(error))
    return in_process.take(costs)
