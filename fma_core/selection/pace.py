"""Pace steering: when a client that may not take part now should ask again.

A small population should come back together when the round is expected to end, because the next round needs enough
clients at the same time. A large one should be spread, so that a million clients do not return at once. One formula
does both without any state: the server tells each client a time and stores nothing.
Source: Bonawitz et al. 2019, arXiv:1902.01046, section 2.3, which describes it and gives no formula.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np

MAX_CALLS_PER_S = 50.0
# A day: with more clients than ask in that time, the load counts less than that they come back at all.
MIN_S, MAX_S = 5.0, 86_400.0
# Who waits longer for the end of a round misses a new experiment.
MAX_UNTIL_S = 3600.0


def retry_after_s(
    rng: np.random.Generator,
    *,
    num_clients: int,
    until_s: float | None = None,
    max_calls_per_s: float = MAX_CALLS_PER_S,
    min_s: float = MIN_S,
    max_s: float = MAX_S,
) -> float:
    """The seconds to wait: until the round's expected end, then a random part of a window for all clients.

    num_clients: the number of clients that may get the same answer. until_s: the seconds to the expected end; None when
        it is not known.
    max_calls_per_s: the load that the server can bear. The window is 2 · num_clients / max_calls_per_s; the factor 2
        because clients that keep asking wait half of it on average.
    min_s, max_s: bounds of the answer. A window that does not fit is as wide as they are, and the load is higher.
        The end of a round that is more than an hour away counts as an hour.
    """
    window = min(2 * num_clients / max_calls_per_s, max_s - min_s)
    start = min_s if until_s is None else max(min_s, min(until_s, MAX_UNTIL_S, max_s - window))
    return float(min(start + window * rng.random(), max_s))


def pace_rng(seed: int, round_number: int, client: str) -> np.random.Generator:
    """A generator for one client in one round, so that the server gives the same answer when it asks again."""
    place = int.from_bytes(sha256(client.encode()).digest()[:8])
    return np.random.Generator(np.random.PCG64([seed, round_number, place]))
