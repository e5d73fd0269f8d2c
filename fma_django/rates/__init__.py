"""Limits of how much in a time, of anything, which hold for callers that come at once.

With FMA_BROKER_URL in Redis, once for all processes of the server; else by each process alone, so that a server of two
processes may take twice as much.
"""

from collections.abc import Sequence

import structlog

from fma_django import conf
from fma_django.rates import in_redis
from fma_django.rates.cost import Cost
from fma_django.rates.in_process import InProcess

__all__ = ["Cost", "of_this_process", "take"]

log = structlog.get_logger(__name__)
of_this_process = InProcess()


def take(costs: Sequence[Cost]) -> tuple[float, str]:
    """Take all of `costs` and return 0; or none, and the seconds until they can be taken, and the key that says so."""
    if url := conf.current().broker_url:
        from redis import RedisError

        try:
            return in_redis.take(url, costs)
        except RedisError as error:
            # A limit that each process counts alone is nearer to what was asked than none, and than no service at all.
            log.warning("rates_counted_alone", error=repr(error))
    return of_this_process.take(costs)
