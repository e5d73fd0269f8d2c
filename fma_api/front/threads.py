"""The threads in which Django answers."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

import structlog

log = structlog.get_logger(__name__)

Work = Callable[[], None]


class Threads:
    """Runs work in at most `limit` threads, started when all that are there are busy.

    So a quiet server has few of them, and few connections to the database: one each.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._work: SimpleQueue[Work] = SimpleQueue()
        # While there may be more threads: those that wait for work, less what is there for them.
        self._idle = threading.Semaphore(0)
        self.count = 0

    def run(self, work: Work) -> None:
        """Called by one thread only."""
        if self._idle.acquire(blocking=False) or self.count == self._limit:
            self._work.put(work)
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
            work = self._work.get()
