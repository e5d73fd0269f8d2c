"""Joining a round: a client asks before it trains whether it may take part now.

A client that may not is told when to ask again. The server spreads these times, so that not all clients return at once;
this module keeps them from one call to the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from fma_connect.exceptions import ConnectionFailed, Refused, UnexpectedAnswer
from fma_connect.retry import RETRYABLE_STATUSES, RetryPolicy
from fma_connect.transport import Transport

__all__ = ["Joined", "Joining", "NotJoined", "answer_of"]

logger = logging.getLogger("fma_connect")

LONGEST_WAIT_S = 30
# The pause when the server gives no time.
PAUSE_S = 5.0
SHORTEST_PAUSE_S = 0.2
PAUSES = RetryPolicy(first_delay_s=0.5, max_delay_s=10.0)


@dataclass(frozen=True)
class Joined:
    """The answer to a client that takes part in a round.

    base_aggregate: the aggregate to train from, which `pull` returns; None while the newest weights are an artifact's.
    client_config: the training configuration for this client, read-only.
    deadline_at: the latest time at which the round closes; None without a deadline.
    """

    round: int
    base_aggregate: int | None
    client_config: Mapping[str, Any] = field(hash=False)
    deadline_at: datetime | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "client_config", MappingProxyType(dict(self.client_config)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mappingproxy can neither be pickled nor copied deeply.
        return Joined, (self.round, self.base_aggregate, dict(self.client_config), self.deadline_at)


@dataclass(frozen=True)
class NotJoined:
    """The answer to a client that does not take part now.

    reason: stable, for programs ("not_chosen"); detail: the same for people.
    retry_after_s: the seconds to wait before asking again; None when the experiment has ended.
    """

    reason: str
    detail: str
    retry_after_s: float | None
    round: int | None = None


def answer_of(body: Any) -> Joined | NotJoined:
    """Read the server's answer. Raises UnexpectedAnswer for a body that is none."""
    try:
        if body["accepted"]:
            deadline = body["deadline_at"]
            return Joined(
                int(body["round"]),
                body["base_aggregate"],
                body["client_config"],
                None if deadline is None else datetime.fromisoformat(deadline),
            )
        return NotJoined(body["reason"], body["detail"], body["retry_after_s"], body.get("round"))
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(
            f"the server did not say whether the client may take part: {body!r:.200}"
        ) from error


class Joining:
    """Asks until the client is accepted, at the times that the server gives.

    ask(wait_s, is_retried): one call, which the server may answer up to wait_s seconds later.
    """

    def __init__(
        self,
        ask: Callable[[int, bool], Joined | NotJoined],
        transport: Transport,
    ) -> None:
        self.has_ended = False
        self._ask = ask
        self._transport = transport
        self._sleep = transport.sleep
        self._clock = transport.clock
        self._ask_again_at = self._clock()

    def once(self, wait_s: int = 0, *, is_retried: bool = True) -> Joined | NotJoined:
        """Ask once, and keep the time to ask again."""
        answer = self._ask(wait_s, is_retried)
        self.has_ended = isinstance(answer, NotJoined) and answer.retry_after_s is None
        if isinstance(answer, NotJoined):
            self._pause(PAUSE_S if answer.retry_after_s is None else answer.retry_after_s)
        else:
            self._pause(0.0)
        return answer

    def in_time(self, timeout_s: float | None) -> Joined | None:
        """Ask until the client takes part in a round; None when the time is over or the experiment has ended."""
        with self._transport.within(timeout_s):
            return self._in_time(None if timeout_s is None else self._clock() + timeout_s)

    def _in_time(self, ends_at: float | None) -> Joined | None:
        has_answered = False
        failures = 0
        # A server that has never answered is given up like in any other call: it is probably a wrong address.
        patient_until = self._clock() + self._transport.timeout_s
        while (
            True
        ):  # without `timeout_s` for as long as the experiment lasts; each question has its own limit
            if not self._pause_is_over_by(ends_at):
                return None
            left_s = LONGEST_WAIT_S if ends_at is None else min(LONGEST_WAIT_S, ends_at - self._clock())
            wait_s = self._transport.waits.of(left_s)
            asked_at = self._clock()
            try:
                answer = self.once(wait_s, is_retried=False)
            except (ConnectionFailed, Refused) as error:
                now = self._clock()
                is_over = ends_at is not None and now >= ends_at
                if self._transport.waits.learn(error, wait_s=wait_s, elapsed_s=now - asked_at):
                    logger.info("wait_cut while=joining waited_s=%.1f", now - asked_at)
                    if is_over:
                        return None
                    self._pause(SHORTEST_PAUSE_S)
                    continue
                failures += 1
                most = self._transport.retry.max_attempts
                is_hopeless = now >= patient_until or (most is not None and failures >= most)
                self._pause(
                    _pause_or_raise(
                        error,
                        self._backoff_s(failures),
                        is_hopeless=is_over or (is_hopeless and not has_answered),
                    )
                )
                if ends_at is not None and self._ask_again_at >= ends_at:
                    self._sleep(ends_at - now)
                    raise
                continue
            has_answered = True
            failures = 0
            if isinstance(answer, Joined):
                return answer
            logger.info("not_joined reason=%s retry_after_s=%s", answer.reason, answer.retry_after_s)
            if answer.retry_after_s is None:
                return None

    def _backoff_s(self, failures: int) -> float:
        return SHORTEST_PAUSE_S + PAUSES.delay_s(failures, self._transport.rng)

    def _pause(self, seconds: float) -> None:
        self._ask_again_at = self._clock() + seconds

    def _pause_is_over_by(self, ends_at: float | None) -> bool:
        now = self._clock()
        if ends_at is not None and self._ask_again_at > ends_at:
            # Asking earlier would defeat the server's spreading of clients.
            self._sleep(max(0.0, ends_at - now))
            return False
        if self._ask_again_at > now:
            self._sleep(self._ask_again_at - now)
        return True


def _pause_or_raise(error: ConnectionFailed | Refused, backoff_s: float, *, is_hopeless: bool) -> float:
    if is_hopeless or (isinstance(error, Refused) and error.status not in RETRYABLE_STATUSES):
        raise error
    logger.warning("server_away while=joining cause=%s", error)
    retry_after_s = error.retry_after_s if isinstance(error, Refused) else None
    return backoff_s if retry_after_s is None else retry_after_s
