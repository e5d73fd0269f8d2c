"""How long a call may wait at the server: what the proxies on the way let through, learned from calls that were cut."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from fma_connect.exceptions import Refused

__all__ = ["CUT_STATUSES", "WaitCut", "WaitLimit"]

# A server that is away answers, or refuses the connection, sooner than this.
LEAST_WAITED_S = 0.5
# Of the time after which a wait was cut; the way there and back has to fit in, too.
SAFE_SHARE = 0.7
# One cut may have been a restart of the server, and proxies are configured anew.
REMEMBERED_S = 3600.0
CUT_STATUSES = frozenset({408, 499, 502, 503, 504, 522, 524})


class WaitCut(Exception):
    """The end of a wait by something on the way; a shorter one may get through."""


class WaitLimit:
    """The longest wait that gets through. Threads may share it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._most_s: int | None = None
        self._learned_at = 0.0

    def of(self, wait_s: float) -> int:
        """The whole seconds to wait in one call, of the seconds that the caller has."""
        if self._most_s is not None and self._clock() - self._learned_at > REMEMBERED_S:
            self._most_s = None
        seconds = max(0, int(wait_s))
        return seconds if self._most_s is None else min(seconds, self._most_s)

    def learn(self, error: Exception, *, wait_s: int, elapsed_s: float) -> bool:
        """Whether something on the way has probably cut this wait; then the next ones are shorter.

        error: the end of a request before a successful answer has begun. elapsed_s: since the request was sent.
        """
        if isinstance(error, Refused):
            may_be_cut = error.status in CUT_STATUSES and error.retry_after_s is None
        else:
            # A proxy that cuts a wait closes the connection. Silence and a refused connection have other reasons.
            may_be_cut = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)
        if wait_s <= 0 or elapsed_s < LEAST_WAITED_S or not may_be_cut:
            return False
        self._most_s, self._learned_at = int(min(elapsed_s, wait_s) * SAFE_SHARE), self._clock()
        return True
