"""The waiting room of requests for news: a place is a future of the event loop, without a thread or a connection."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto

from fma_api.front.protocol import Exchange
from fma_django.wakeups import ALL

PER_CLIENT = 8
"""A client waits for a few models, each for rounds, evaluations and aggregates."""
LOOK_S = {"client": 0.05, "address": 0.02}
"""The seconds between two looks of a sender that has all of its places: it waits for a look instead."""


class Outcome(Enum):
    """The reason why a wait has ended. NO_PLACE: all are taken, or all of its sender, or the server is stopping."""

    NEWS = auto()
    TIME = auto()
    GONE = auto()
    NO_PLACE = auto()


Place = asyncio.Future[Outcome]


class WaitingRoom:
    """Belongs to the event loop's thread.

    Between a look into the database and the wait for what changes it, something may be heard. Who looks says when: it
    takes `moment` before, and `wait(..., since=moment)` is over at once if one of the topics was heard after it.

    places: of all senders together. One address may have three quarters of them, one client PER_CLIENT.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, places: int) -> None:
        self._loop = loop
        self._places, self._per_address = places, places - places // 4
        self._of_senders: Counter[str] = Counter()
        self._next_looks: dict[str, float] = {}
        self._before_looks: set[Place] = set()
        self._waiting: defaultdict[str, set[Place]] = defaultdict(set)
        self._last_heard: dict[str, int] = {}
        self._is_closed = False
        self.moment = 0
        self.count = 0

    def takes_more_of(self, address: str, client: str | None) -> bool:
        """address: or network, of the sender. client: its credential."""
        return (
            self.count < self._places
            and not self._is_closed
            and all(self._of_senders[key] < most for key, most in self._limits(address, client).items())
        )

    async def turn(
        self, exchange: Exchange, *, seconds: float, address: str = "", client: str | None = None
    ) -> Outcome:
        """Wait until a sender that has all of its places may look: TIME, at once for every other sender.

        seconds: the time that the request may wait; NO_PLACE when its turn comes later.
        """
        full = [key for key, most in self._limits(address, client).items() if self._of_senders[key] >= most]
        if not full or self._is_closed:
            return Outcome.TIME
        now = self._loop.time()
        at = max(now, *(self._next_looks.get(key, now) for key in full))
        if at > now + seconds:
            return Outcome.NO_PLACE
        for key in full:
            self._next_looks[key] = at + LOOK_S[key.partition(" ")[0]]
        if at == now:
            return Outcome.TIME
        place: Place = self._loop.create_future()
        self._before_looks.add(place)
        try:
            return await self._outcome(exchange, place, until=at)
        finally:
            self._before_looks.discard(place)

    async def _outcome(self, exchange: Exchange, place: Place, *, until: float) -> Outcome:
        timer = self._loop.call_at(until, _end, place, Outcome.TIME)
        watch = self._loop.create_task(_end_when_gone(exchange, place))
        try:
            return await place
        finally:
            timer.cancel()
            watch.cancel()

    async def wait(
        self,
        exchange: Exchange,
        topics: Collection[str],
        *,
        since: int,
        until: float,
        address: str = "",
        client: str | None = None,
    ) -> Outcome:
        """until: by the loop's clock."""
        if not self.takes_more_of(address, client):
            return Outcome.NO_PLACE
        if any(self._last_heard.get(topic, 0) > since for topic in (*topics, ALL)):
            return Outcome.NEWS
        place: Place = self._loop.create_future()
        with self._taken(place, topics, self._limits(address, client).keys()):
            return await self._outcome(exchange, place, until=until)

    def wake(self, heard: Collection[str]) -> None:
        """Something of these topics changed."""
        self.moment += 1
        for topic in heard:
            self._last_heard[topic] = self.moment
        for topic in self._waiting if ALL in heard else heard:
            for place in self._waiting.get(topic, ()):
                _end(place, Outcome.NEWS)

    def close(self) -> None:
        """Everybody goes home now, and who comes later at once."""
        self._is_closed = True
        for place in self._before_looks:
            _end(place, Outcome.TIME)
        for places in self._waiting.values():
            for place in places:
                _end(place, Outcome.NO_PLACE)

    def _limits(self, address: str, client: str | None) -> Mapping[str, int]:
        limits = {f"address {address}": self._per_address}
        return limits if client is None else {**limits, f"client {client}": PER_CLIENT}

    @contextmanager
    def _taken(self, place: Place, topics: Collection[str], senders: Collection[str]) -> Iterator[None]:
        self.count += 1
        self._of_senders.update(senders)
        for topic in topics:
            self._waiting[topic].add(place)
        try:
            yield
        finally:
            self.count -= 1
            for sender in senders:
                self._of_senders[sender] -= 1
                if not self._of_senders[sender]:
                    del self._of_senders[sender]
                    self._next_looks.pop(sender, None)
            for topic in topics:
                self._waiting[topic].discard(place)
                if not self._waiting[topic]:
                    del self._waiting[topic]


def _end(place: Place, outcome: Outcome) -> None:
    if not place.done():
        place.set_result(outcome)


async def _end_when_gone(exchange: Exchange, place: Place) -> None:
    await exchange.client_disconnect()
    _end(place, Outcome.GONE)
