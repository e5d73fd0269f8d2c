"""The threads in which Django answers."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue


class Threads:
    """Runs work in at most `limit` threads, started when all that are there are busy.

    So a quiet server has few of them, and few connections to the database: one each.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self.count = 0

    def run(self, work: Callable[[], None]) -> None:
        """Called by one thread only. `work` must not raise."""
        self._work.put(work)
        if not self._idle.acquire(blocking=False) and self.count < self._limit:
            self.count += 1
            # Daemons, because one that waits for a stalled client must not keep the process from ending.
            threading.Thread(target=self._loop, name=f"web-{self.count}", daemon=True).start()

    def _loop(self) -> None:
        while True:
            try:
                work = self._work.get_nowait()
            except Empty:
                self._idle.release()
                work = self._work.get()
            work()
            del work  # and with it the request: granian keeps a connection as long as its body may be read
