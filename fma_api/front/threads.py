"""The threads in which Django answers."""

import threading
from collections import deque
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

Work = Callable[[], None]


class Threads:
    """Runs work in at most `limit` threads, started when all that are there are busy.

    So a quiet server has few of them, and few connections to the database: one each.
    When all are busy, work waits, and its senders take turns: nobody waits for the thousand requests of another one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ready = threading.Semaphore(0)
        self._lock = threading.Lock()
        # By their senders, in the order of their turns.
        self._waiting: dict[str, deque[Work]] = {}
        # While there may be more threads: those that wait for work, less what is there for them.
        self._idle = threading.Semaphore(0)
        self.count = 0

    def run(self, work: Work, *, sender: str = "") -> None:
        """Called by one thread only."""
        if self._idle.acquire(blocking=False) or self.count == self._limit:
            with self._lock:
                self._waiting.setdefault(sender, deque()).append(work)
            self._ready.release()
            return
        self.count += 1
        # Daemons, because one that waits for a stalled client must not keep the process from ending.
        threading.Thread(target=self._loop, args=(work,), name=f"web-{self.count}", daemon=True).start()

    def _loop(self, work: Work) -> None:
        while True:  # for ever: a daemon thread that waits for work
            try:
                work()
            except BaseException:  # a thread that ended would never be replaced
                log.exception("work_broke")
            del work  # and with it the request: granian keeps a connection as long as its body may be read
            self._idle.release()
            work = self._next()

    def _next(self) -> Work:
        self._ready.acquire()
        with self._lock:
            sender = next(iter(self._waiting))
            waiting = self._waiting.pop(sender)
            work = waiting.popleft()
            if waiting:
                self._waiting[sender] = waiting  # its next turn comes after all others'
        return work
