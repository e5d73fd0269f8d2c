"""Waiting for news: one request after the other, each held back by the server, until the caller's time is over."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from fma_connect.exceptions import ConnectionFailed, Refused
from fma_connect.retry import RETRYABLE_STATUSES, RetryPolicy
from fma_connect.transport import ONE_CALL_S, Transport
from fma_connect.wait_limit import CUT_STATUSES, WaitCut

__all__ = ["Waiting"]

logger = logging.getLogger("fma_connect")

# After an answer that came at once, or none: no server is asked in a hot loop.
SHORTEST_PAUSE_S = 0.2
PAUSES = RetryPolicy(first_delay_s=0.5, max_delay_s=10.0)

T = TypeVar("T")


class Waiting:
    """The wait of one caller.

    timeout_s: the time for all of it; None: no limit. longest_s: the most that one request is held back.
    grace_s: the time after timeout_s in which the last answer may still arrive.
    patience_s: the time after which a server that has not answered at all is given up; None: timeout_s.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float | None,
        longest_s: float,
        grace_s: float = 0.0,
        patience_s: float | None = None,
    ) -> None:
        self._transport = transport
        self._longest_s = longest_s
        now = transport.clock()
        self._ends_at = math.inf if timeout_s is None else now + timeout_s
        # Without time left there is still one call.
        self._promised_at = None if timeout_s is None else now + max(timeout_s + grace_s, ONE_CALL_S)
        self._given_up_at = math.inf if patience_s is None else now + patience_s
        self._has_asked = self._has_answered = False
        self._fruitless = 0
        self._ask_again_at = now

    @property
    def is_over(self) -> bool:
        """Whether the caller's time is over."""
        return self._left_s() <= 0

    def promise(self) -> AbstractContextManager[None]:
        """Promise that all calls of this thread in the `with` end in time; a last one may follow the end."""
        if self._promised_at is None:
            return self._transport.until(None)
        return self._transport.until(max(self._promised_at, self._transport.clock() + ONE_CALL_S))

    def until_news(self, question: Callable[[float], T]) -> T | None:
        """Ask until there is news; None when the time is over. Raises as `ask`."""
        news = self.ask(question)
        while news is None and self.pause():
            news = self.ask(question)
        return news

    def ask(self, question: Callable[[float], T]) -> T | None:
        """Ask once; None when there is no news yet, when the wait was cut, or while the server is away.

        question(wait_s): one call of the transport with this wait_s; None is no news.
        Raises the error when the server is still away at the end of the time, and every other refusal at once.
        """
        self._has_asked = True
        asked_at = self._transport.clock()
        wait_s = min(self._longest_s, max(self._left_s(), 0.0))
        pause_s = SHORTEST_PAUSE_S
        news: T | None = None
        try:
            with self._transport.until(self._promised_at):
                news = question(wait_s)
        except WaitCut:
            pause_s = self._longer_pause_s()
        except (ConnectionFailed, Refused) as error:
            pause_s = self._pause_after(error)
        else:
            self._has_answered = True
            allowed_s = self._transport.waits.of(wait_s)
            if news is not None:
                self._fruitless = 0
            elif allowed_s == 0 or self._transport.clock() - asked_at < allowed_s / 2:
                pause_s = self._longer_pause_s()
            else:
                self._fruitless, pause_s = 0, 0.0
        self._ask_again_at = self._transport.clock() + pause_s
        return news

    def had_news(self) -> None:
        """Begin with short pauses again."""
        self._fruitless = 0

    def pause(self, until: float = 0.0) -> bool:
        """Sleep until the next request is due, not before the moment `until`; return whether it is due in time.

        Without any time, one request is.
        """
        ask_again_at, now = max(self._ask_again_at, until), self._transport.clock()
        if ask_again_at > now:
            self._transport.sleep(max(0.0, min(ask_again_at, self._ends_at) - now))
        return ask_again_at <= self._ends_at and not (self._has_asked and self.is_over)

    def _left_s(self) -> float:
        return self._ends_at - self._transport.clock()

    def _longer_pause_s(self) -> float:
        self._fruitless += 1
        return SHORTEST_PAUSE_S + PAUSES.delay_s(self._fruitless, self._transport.rng)

    def _pause_after(self, error: ConnectionFailed | Refused) -> float:
        pause_s = self._longer_pause_s()
        if isinstance(error, Refused):
            if error.status not in RETRYABLE_STATUSES | CUT_STATUSES:
                raise error
            pause_s = max(pause_s, error.retry_after_s or 0.0)
        now = self._transport.clock()
        most = self._transport.retry.max_attempts
        is_given_up = now >= self._given_up_at or (
            self._given_up_at < math.inf and most is not None and self._fruitless >= most
        )
        if is_given_up and not self._has_answered:
            raise error
        if now + pause_s >= self._ends_at:
            self._transport.sleep(max(0.0, self._ends_at - now))
            raise error
        logger.warning("server_away cause=%s", error)
        return pause_s
