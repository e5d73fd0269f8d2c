"""Work on many items in threads, with the results in the order of the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def in_order(work: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, threads: int) -> Iterator[ResultT]:
    """Give work(item) for each item, in their order. With threads=1 the caller's thread does the work.

    Only a few items are in progress at a time, so that neither tasks nor results pile up. After an error no further
    item is started, and the error of the earliest item is raised.
    """
    if threads == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[ResultT]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="fma-engine") as pool:
        try:
            for item in items:
                if len(waiting) >= threads:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(work, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
