"""Limits as one process counts them, for all of its threads."""

import threading
import time
from collections.abc import Callable, Sequence

from fma_django.rates.cost import Cost

MOST_KEYS = 100_000


class InProcess:
    """For each key the moment at which nothing of it will be in use."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_again_at: dict[str, float] = {}
        self._look_beyond = MOST_KEYS
        self._lock = threading.Lock()

    def take(self, costs: Sequence[Cost]) -> tuple[float, str]:
        """0 when all of `costs` were taken; else none was, how many seconds it is until they can be, and the key that
        this is because of."""
        with self._lock:
            now = self._clock()
            known = self._full_again_at
            wait_s, key = max((cost.wait_s(known.get(cost.key, now), now), cost.key) for cost in costs)
            if wait_s > 0:
                return wait_s, key
            for cost in costs:
                known[cost.key] = max(known.get(cost.key, now), now) + cost.takes_s
            if len(known) > self._look_beyond:
                # A key that is full again means the same as a missing one. Looked for again once there are twice as
                # many: each look goes through all, while everybody waits.
                self._full_again_at = {key: at for key, at in known.items() if at > now}
                self._look_beyond = max(MOST_KEYS, 2 * len(self._full_again_at))
        return 0.0, ""

    def forget(self) -> None:
        with self._lock:
            self._full_again_at = {}
