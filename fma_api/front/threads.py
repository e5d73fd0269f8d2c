"""The threads in which Django answers."""

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count

import structlog

log = structlog.get_logger(__name__)

Work = Callable[[], None]

AT_ONCE = 2
"""The most work of one sender that runs at once while others send too: threads share one interpreter lock."""
SHARED_S = 10.0
"""The server counts as shared for so long after work of another sender than the one before."""
LONG_S = 0.25
"""Work that takes longer no longer counts towards AT_ONCE: it mostly waits, for a body, a store or a slow reader."""


class Threads:
    """Runs work in at most `limit` threads, started when all that are there are busy.

    So a quiet server has few of them, and few connections to the database: one each.
    Work that waits is taken in turns of its senders: nobody waits for the thousand requests of another one. One sender
    may have all threads while it is the only one, and AT_ONCE of them otherwise.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition(threading.Lock())
        # By their senders, in the order of their turns.
        self._waiting: dict[str, deque[Work]] = {}
        self._num_waiting = 0
        # When the work that runs has begun, by its number, for each sender.
        self._running: dict[str, dict[int, float]] = {}
        self._numbers = count()
        self._latest_sender: str | None = None
        self._shared_until = 0.0
        self._num_idle = 0
        self.count = 0

    def run(self, work: Work, *, sender: str = "") -> None:
        with self._changed:
            if sender != self._latest_sender:
                if self._latest_sender is not None:
                    self._shared_until = time.monotonic() + SHARED_S
                self._latest_sender = sender
            self._waiting.setdefault(sender, deque()).append(work)
            self._num_waiting += 1
            if self._num_waiting <= self._num_idle or self.count == self._limit:
                self._changed.notify()
                return
            self.count += 1
            self._num_idle += 1
        # Daemons, because one that waits for a stalled client must not keep the process from ending.
        threading.Thread(target=self._loop, name=f"web-{self.count}", daemon=True).start()

    def _loop(self) -> None:
        while True:  # for ever: a daemon thread that waits for work
            sender, number, work = self._begin()
            try:
                work()
            except BaseException:  # a thread that ended would never be replaced
                log.exception("work_broke")
            del work  # and with it the request: granian keeps a connection as long as its body may be read
            self._end(sender, number)

    def _begin(self) -> tuple[str, int, Work]:
        """Wait for work that may begin, and take it: its sender, its number, and itself."""
        with self._changed:
            while (sender := self._next_sender()) is None:
                self._changed.wait(LONG_S if self._waiting else None)
            waiting = self._waiting.pop(sender)
            work = waiting.popleft()
            if waiting:
                self._waiting[sender] = waiting  # its next turn comes after all others'
            self._num_waiting -= 1
            self._num_idle -= 1
            number = next(self._numbers)
            self._running.setdefault(sender, {})[number] = time.monotonic()
            if self._waiting:
                self._changed.notify()  # somebody looks at what may not begin yet
        return sender, number, work

    def _end(self, sender: str, number: int) -> None:
        with self._changed:
            running = self._running[sender]
            del running[number]
            if not running:
                del self._running[sender]
            self._num_idle += 1

    def _next_sender(self) -> str | None:
        """The first whose work may begin. Few are passed over: each of them has AT_ONCE threads."""
        now = time.monotonic()
        is_shared = now < self._shared_until
        for sender in self._waiting:
            began_at = self._running.get(sender, {}).values()
            if not is_shared or sum(now - since < LONG_S for since in began_at) < AT_ONCE:
                return sender
        return None
