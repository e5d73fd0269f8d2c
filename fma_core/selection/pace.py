"""Pace steering: when a client that may not take part now should ask again.

Small populations meet: everybody comes back when the round is expected to end, because the next one needs enough of
them at the same time. Large ones are spread, so that a million clients do not return at once. The same formula does
both, and it needs no state: a client is told a time, and nothing is kept.
Source: Bonawitz et al. 2019, arXiv:1902.01046, section 2.3, which describes it and gives no formula.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np

MAX_CALLS_PER_S = 50.0
MIN_S, MAX_S = 5.0, 3600.0


def retry_after_s(
    rng: np.random.Generator,
    *,
    num_clients: int,
    until_s: float | None = None,
    max_calls_per_s: float = MAX_CALLS_PER_S,
    min_s: float = MIN_S,
    max_s: float = MAX_S,
) -> float:
    """Seconds to wait: until the round's expected end, and then a moment of a window that all clients fit into.

    num_clients: how many may be told the same. until_s: to the expected end; None when nobody knows it.
    max_calls_per_s: what the server bears. The window is 2 · num_clients / max_calls_per_s: the second factor because
        clients that keep asking wait half of it on average.
    min_s, max_s: bounds of what `until_s` says, so that nobody asks at once again, or sleeps through a new experiment.
    """
    window = 2 * num_clients / max_calls_per_s
    start = min_s if until_s is None else min(max(until_s, min_s), max_s)
    return float(start + window * rng.random())


def pace_rng(seed: int, round_number: int, client: str) -> np.random.Generator:
    """A client's own generator in a round: asked again, the server names the same moment of the window."""
    place = int.from_bytes(sha256(client.encode()).digest()[:8])
    return np.random.Generator(np.random.PCG64([seed, round_number, place]))
