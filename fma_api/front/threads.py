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
"""For so long after a request, its sender counts among those that share the server."""
LONG_S = 0.25
"""Work that takes longer no longer counts towards AT_ONCE: it mostly waits, for a body, a store or a slow reader."""
LEAST_SHARE = 0.2
"""While n send, the work of one is held back to one nth of a processor in the long run, but never below this part."""
BESIDE_S = 0.0002
"""The processor time that a request takes outside of its thread: in the event loop and in granian."""
MOST_PROCESSOR_S = 0.05
"""No more is counted of one request: large bodies are hashed and checked without the interpreter lock."""
BURST_S = 2.0
"""So far ahead of its share a sender may be: a hospital's clients come at once when a round begins."""
LOOK_EVERY_S = 0.02
"""So often one thread looks whether work that had to wait may begin."""


class Threads:
    """Runs work in at most `limit` threads, started when all that are there are busy.

    So a quiet server has few of them, and few connections to the database: one each.
    Work that waits is taken in turns of its senders: nobody waits for the thousand requests of another one. One sender
    may have all threads while it is the only one; otherwise AT_ONCE of them, and its share of one processor.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition(threading.Lock())
        # By their senders, in the order of their turns.
        self._waiting: dict[str, deque[Work]] = {}
        self._num_waiting = 0
        # When the work that runs has begun, by its number, for each sender.
        self._running: dict[str, dict[int, float]] = {}
        # The moment at which a sender that keeps to its share would have come as far.
        self._ahead_until: dict[str, float] = {}
        self._numbers = count()
        self._somebody_looks = False
        # The time of the latest request of each sender, the oldest first.
        self._sent_at: dict[str, float] = {}
        self._num_idle = 0
        self.count = 0

    def run(self, work: Work, *, sender: str = "") -> None:
        with self._changed:
            self._sent_at.pop(sender, None)
            self._sent_at[sender] = time.monotonic()
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
            began_at = time.thread_time()
            try:
                work()
            except BaseException:  # a thread that ended would never be replaced
                log.exception("work_broke")
            del work  # and with it the request: granian keeps a connection as long as its body may be read
            self._end(sender, number, time.thread_time() - began_at)

    def _begin(self) -> tuple[str, int, Work]:
        """Wait for work that may begin, and take it: its sender, its number, and itself."""
        with self._changed:
            while (sender := self._next_sender()) is None:
                if self._somebody_looks or not self._waiting:
                    self._changed.wait()
                else:
                    self._somebody_looks = True
                    self._changed.wait(LOOK_EVERY_S)
                    self._somebody_looks = False
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

    def _end(self, sender: str, number: int, processor_s: float) -> None:
        now = time.monotonic()
        with self._changed:
            self._count(sender, processor_s, now)
            running = self._running[sender]
            del running[number]
            if not running:
                del self._running[sender]
            self._num_idle += 1

    def _count(self, sender: str, processor_s: float, now: float) -> None:
        num_senders = self._num_senders(now)
        if num_senders == 1:  # what it takes while it is alone is taken from nobody
            return
        for even in [each for each, until in self._ahead_until.items() if until < now]:
            del self._ahead_until[even]
        counted_s = min(processor_s, MOST_PROCESSOR_S) + BESIDE_S
        share = max(LEAST_SHARE, 1 / num_senders)
        self._ahead_until[sender] = self._ahead_until.get(sender, now) + counted_s / share

    def _next_sender(self) -> str | None:
        """The first whose work may begin. Few are passed over: each has AT_ONCE threads, or had much of a processor."""
        now = time.monotonic()
        is_shared = self._num_senders(now) > 1
        for sender in self._waiting:
            if not is_shared or (
                self._num_short(sender, now) < AT_ONCE and self._ahead_until.get(sender, now) <= now + BURST_S
            ):
                return sender
        return None

    def _num_senders(self, now: float) -> int:
        """How many have sent something lately, or have work that waits; one at least."""
        while len(self._sent_at) > 1 and self._sent_at[oldest := next(iter(self._sent_at))] < now - SHARED_S:
            del self._sent_at[oldest]
            if oldest in self._waiting:
                self._sent_at[oldest] = now
        return len(self._sent_at)

    def _num_short(self, sender: str, now: float) -> int:
        return sum(now - since < LONG_S for since in self._running.get(sender, {}).values())
