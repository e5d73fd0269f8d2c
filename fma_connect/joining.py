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

from fma_connect.exceptions import UnexpectedAnswer
from fma_connect.transport import Transport
from fma_connect.waiting import Waiting

__all__ = ["Joined", "Joining", "NotJoined", "answer_of"]

logger = logging.getLogger("fma_connect")

LONGEST_WAIT_S = 30
# The pause when the server gives no time.
PAUSE_S = 5.0


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

    ask(wait_s): one call, which the server may answer up to wait_s seconds later; None: one that it answers at once.
    """

    def __init__(
        self,
        ask: Callable[[float | None], Joined | NotJoined],
        transport: Transport,
    ) -> None:
        self.has_ended = False
        self._ask = ask
        self._transport = transport
        self._ask_again_at = transport.clock()

    def once(self, wait_s: float | None = None) -> Joined | NotJoined:
        """Ask once, and keep the time to ask again."""
        answer = self._ask(wait_s)
        self.has_ended = isinstance(answer, NotJoined) and answer.retry_after_s is None
        pause_s = 0.0
        if isinstance(answer, NotJoined):
            pause_s = PAUSE_S if answer.retry_after_s is None else answer.retry_after_s
        self._ask_again_at = self._transport.clock() + pause_s
        return answer

    def in_time(self, timeout_s: float | None) -> Joined | None:
        """Ask until the client takes part in a round; None when the time is over or the experiment has ended."""
        # A server that has never answered is given up like in any other call: it is probably a wrong address.
        waiting = Waiting(
            self._transport,
            timeout_s=timeout_s,
            longest_s=LONGEST_WAIT_S,
            patience_s=self._transport.timeout_s,
        )
        # Asking earlier would defeat the server's spreading of clients.
        while waiting.pause(until=self._ask_again_at):
            answer = waiting.ask(self.once)
            if isinstance(answer, Joined):
                return answer
            if answer is not None:
                logger.info("not_joined reason=%s retry_after_s=%s", answer.reason, answer.retry_after_s)
                if answer.retry_after_s is None:
                    return None
        return None
