"""Find out whether wake-ups reach this process, by one that it sends to itself.

They do not behind a pooler that pools by transaction: LISTEN is then a statement of a connection that others use next.
Everything works all the same, but each wait lasts until the next regular look.
"""

import time
from collections.abc import Collection

import structlog

from fma_django.wakeups.choose import say
from fma_django.wakeups.listener import ALL
from fma_django.wakeups.topics import of_model

log = structlog.get_logger(__name__)

# No model has this number, so nobody waits for it.
PROBE = of_model(0)
WITHIN_S = 2.0
EVERY_S = 60.0

_is_deaf = False


def are_heard() -> bool:
    """Whether this process hears wake-ups: False once one that it sent to itself did not arrive, until one does."""
    return not _is_deaf


class Probe:
    """The probes of one listener. It waits no longer than `wait_s` says, and `take` gets all that it heard."""

    def __init__(self) -> None:
        self._next_on = 0.0
        self._until: float | None = None

    def wait_s(self) -> float:
        """Send a probe when it is time; how long to wait for it, or for the time of the next."""
        now = time.monotonic()
        if self._until is None and now >= self._next_on:
            self._until, self._next_on = now + WITHIN_S, now + EVERY_S
            say(PROBE)
        return max(0.0, (self._next_on if self._until is None else self._until) - now)

    def take(self, heard: Collection[str]) -> None:
        """Judge the probe that was sent, if its time is over or it is among the topics."""
        if PROBE in heard:
            self._until = None
            _settle(is_deaf=False)
        elif ALL in heard:  # the listener was away, and the probe may be lost
            self._until, self._next_on = None, 0.0
        elif self._until is not None and time.monotonic() >= self._until:
            self._until = None
            _settle(is_deaf=True)


def _settle(*, is_deaf: bool) -> None:
    global _is_deaf
    if is_deaf and not _is_deaf:
        log.warning(
            "wakeups_not_heard",
            reason="a wake-up that this process sent to itself did not arrive: waits end by polling. A pooler such as "
            "PgBouncer must pool by session; or set FMA_BROKER_URL",
        )
    elif _is_deaf and not is_deaf:
        log.info("wakeups_heard_again")
    _is_deaf = is_deaf
