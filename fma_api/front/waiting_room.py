"""The waiting room of requests for news: a place is a future of the event loop, without a thread or a connection."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import Enum, auto

from fma_api.front.protocol import Exchange
from fma_django.wakeups import ALL


class Outcome(Enum):
    """The reason why a wait has ended. NO_PLACE: all are taken, or the server is stopping."""

    NEWS = auto()
    TIME = auto()
    GONE = auto()
    NO_PLACE = auto()


Place = asyncio.Future[Outcome]


class WaitingRoom:
    """Belongs to the event loop's thread.

    Between a look into the database and the wait for what changes it, something may be heard. Who looks says when: it
    takes `moment` before, and `wait(..., since=moment)` is over at once if one of the topics was heard after it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, places: int) -> None:
        self._loop = loop
        self._places = places
        self._waiting: defaultdict[str, set[Place]] = defaultdict(set)
        self._last_heard: dict[str, int] = {}
        self._is_closed = False
        self.moment = 0
        self.count = 0

    @property
    def takes_more(self) -> bool:
        return self.count < self._places and not self._is_closed

    async def wait(self, exchange: Exchange, topics: Collection[str], *, since: int, until: float) -> Outcome:
        """until: by the loop's clock."""
        if not self.takes_more:
            return Outcome.NO_PLACE
        if any(self._last_heard.get(topic, 0) > since for topic in (*topics, ALL)):
            return Outcome.NEWS
        place: Place = self._loop.create_future()
        timer = self._loop.call_at(until, _end, place, Outcome.TIME)
        watch = self._loop.create_task(_end_when_gone(exchange, place))
        with self._taken(place, topics):
            try:
                return await place
            finally:
                timer.cancel()
                watch.cancel()

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
        for places in self._waiting.values():
            for place in places:
                _end(place, Outcome.NO_PLACE)

    @contextmanager
    def _taken(self, place: Place, topics: Collection[str]) -> Iterator[None]:
        self.count += 1
        for topic in topics:
            self._waiting[topic].add(place)
        try:
            yield
        finally:
            self.count -= 1
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
