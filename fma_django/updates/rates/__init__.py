"""Rate limits of updates and bytes, for each client and each model, counted before a body travels.

A rate that is not set costs nothing. What is counted where: with FMA_BROKER_URL in Redis, once for all processes of the
server; else by each process alone, so that a server of two processes may take twice as much.
"""

from fma_django.updates.rates.count import (
    ask_for_bytes,
    ask_for_update,
    count_arrived,
    count_begun,
    count_update,
)

__all__ = ["ask_for_bytes", "ask_for_update", "count_arrived", "count_begun", "count_update"]
