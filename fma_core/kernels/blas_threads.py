"""A limit of one thread for BLAS: the engine has its own threads, and a second pool below them slows them down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import threadpoolctl

_lock = threading.Lock()
_users = 0
_limit: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit the process's BLAS to one thread until the last of the concurrent users has left.

    The number of threads is a setting of the process: folds that run at the same time share one limit, and the first to
    end must not lift it for the others.
    """
    global _users, _limit
    with _lock:
        if _users == 0:
            _limit = _in_a_thread(lambda: _controller().limit(limits=1, user_api="blas"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _in_a_thread(_limit.restore_original_limits)


def _in_a_thread(work: Callable[[], Any]) -> Any:
    # Since threadpoolctl 3.7 only the thread that set a limit may change it, until that thread has ended. Here the last
    # to leave is often another thread.
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


@cache
def _controller() -> threadpoolctl.ThreadpoolController:
    # It searches the loaded libraries; numpy's BLAS is loaded by `import numpy`.
    return threadpoolctl.ThreadpoolController()
