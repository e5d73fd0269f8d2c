"""One writer at a time, where the database has only one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.db.backends.base.base import BaseDatabaseWrapper

TURN_S = 20

_writers = threading.Lock()


@contextmanager
def turn(database: BaseDatabaseWrapper) -> Iterator[None]:
    """Wait for one's turn to write, at most TURN_S; outside of SQLite, and inside a transaction, there is no wait."""
    # SQLite has one writer at a time, and the others ask again and again, after longer and longer pauses. Those of one
    # process rather stand in line.
    if database.vendor != "sqlite" or database.in_atomic_block:
        yield
        return
    is_ours = _writers.acquire(timeout=TURN_S)
    try:
        yield
    finally:
        if is_ours:
            _writers.release()
