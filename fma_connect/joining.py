"""A client's one question before it trains: may I take part now?

Whoever may not is told when to ask again. Those times are spread over the clients, so that not all of them return at
once, and are kept here from one call to the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from fma_connect.exceptions import ConnectionFailed, Refused, UnexpectedAnswer
from fma_connect.retry import RETRYABLE_STATUSES

__all__ = ["Joined", "Joining", "NotJoined", "answer_of"]

logger = logging.getLogger("fma_connect")

LONGEST_WAIT_S = 30
# Of a server that is away, or says no time.
PAUSE_S = 5.0


@dataclass(frozen=True)
class Joined:
    """The client takes part in a round.

    base_aggregate: the aggregate to train from, which `pull` answers; None while the newest weights are an artifact's.
    client_config: what the model's owner and its strategy tell this client, read-only.
    deadline_at: when the round closes at the latest; None when no time is set.
    """

    round: int
    base_aggregate: int | None
    client_config: Mapping[str, Any] = field(hash=False)
    deadline_at: datetime | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "client_config", MappingProxyType(dict(self.client_config)))


@dataclass(frozen=True)
class NotJoined:
    """The client does not take part now.

    reason: stable, for programs ("not_chosen"); detail: the same for people.
    retry_after_s: when to ask again; None when that is of no use, because the experiment has ended.
    """

    reason: str
    detail: str
    retry_after_s: float | None
    round: int | None = None


def answer_of(said: Any) -> Joined | NotJoined:
    """The server's answer. Raises UnexpectedAnswer when it is none."""
    try:
        if said["accepted"]:
            deadline = said["deadline_at"]
            return Joined(
                int(said["round"]),
                said["base_aggregate"],
                said["client_config"],
                None if deadline is None else datetime.fromisoformat(deadline),
            )
        return NotJoined(said["reason"], said["detail"], said["retry_after_s"], said.get("round"))
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(
            f"the server did not say whether the client may take part: {said!r:.200}"
        ) from error


class Joining:
    """Asks until the client is accepted, at the pace that the server wants.

    ask: one question, which the server may answer up to so many seconds later.
    """

    def __init__(
        self,
        ask: Callable[[int], Joined | NotJoined],
        *,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._ask = ask
        self._sleep = sleep
        self._clock = clock
        self._ask_again_at = clock()

    def once(self, wait_s: int = 0) -> Joined | NotJoined:
        """What the server says now."""
        answer = self._ask(wait_s)
        if isinstance(answer, NotJoined):
            self._pause(PAUSE_S if answer.retry_after_s is None else answer.retry_after_s)
        else:
            self._pause(0.0)
        return answer

    def in_time(self, timeout_s: float | None) -> Joined | None:
        """The round that the client takes part in; None when it did not come to that in time, or never will."""
        ends_at = None if timeout_s is None else self._clock() + timeout_s
        has_answered = False
        while (
            True
        ):  # without `timeout_s` for as long as the experiment lasts; each question has its own limit
            if not self._pause_is_over_by(ends_at):
                return None
            wait_s = LONGEST_WAIT_S if ends_at is None else min(LONGEST_WAIT_S, int(ends_at - self._clock()))
            try:
                answer = self.once(max(0, wait_s))
            except (ConnectionFailed, Refused) as error:
                # Each question has been repeated for a call's time limit. Whoever waits outlives a server that comes
                # back, but one that was never there is a mistake to be told of.
                is_over = ends_at is not None and self._clock() >= ends_at
                self._pause(_pause_or_raise(error, is_hopeless=is_over or not has_answered))
                continue
            has_answered = True
            if isinstance(answer, Joined):
                return answer
            logger.info("not_joined reason=%s retry_after_s=%s", answer.reason, answer.retry_after_s)
            if answer.retry_after_s is None:
                return None

    def _pause(self, seconds: float) -> None:
        self._ask_again_at = self._clock() + seconds

    def _pause_is_over_by(self, ends_at: float | None) -> bool:
        now = self._clock()
        if ends_at is not None and self._ask_again_at > ends_at:
            # Asking earlier would undo what the server spreads its clients for.
            self._sleep(max(0.0, ends_at - now))
            return False
        if self._ask_again_at > now:
            self._sleep(self._ask_again_at - now)
        return True


def _pause_or_raise(error: ConnectionFailed | Refused, *, is_hopeless: bool) -> float:
    if is_hopeless or (isinstance(error, Refused) and error.status not in RETRYABLE_STATUSES):
        raise error
    logger.warning("server_away while=joining cause=%s", error)
    said_s = error.retry_after_s if isinstance(error, Refused) else None
    return PAUSE_S if said_s is None else said_s
