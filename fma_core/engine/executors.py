"""Who does the work of a fold: this thread, several, or (beyond this package) other machines.

Work is cut into items that do not depend on each other; an executor gives their results in the order of the items, and
so cannot change a bit of what comes out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from fma_core.engine.job import Job
from fma_core.engine.ordered_threads import in_order
from fma_core.engine.segments import Cut

ResultT = TypeVar("ResultT", covariant=True)


class Work(Protocol[ResultT]):
    """What is done to each item; it pickles, and finds all that it needs in the job."""

    def __call__(self, job: Job, item: int) -> ResultT: ...

    def columns_of(self, job: Job, item: int) -> Sequence[Cut]:
        """What an item reads, so that it can be fetched ahead where that takes time."""


class Executor(Protocol):
    def run(self, work: Work[Any], job: Job, num_items: int) -> Iterator[Any]:
        """work(job, 0), work(job, 1), … in this order, whichever is done first."""


@dataclass(frozen=True)
class Serial:
    """One item after the other, in the caller's thread."""

    def run(self, work: Work[Any], job: Job, num_items: int) -> Iterator[Any]:
        for item in range(num_items):
            yield work(job, item)


@dataclass(frozen=True)
class Threads:
    """Several items at a time; num_threads: one for each core that this process may use when it is None or 0."""

    num_threads: int | None = None

    def run(self, work: Work[Any], job: Job, num_items: int) -> Iterator[Any]:
        call: Callable[[int], Any] = lambda item: work(job, item)  # noqa: E731
        # Starting a thread takes longer than the one item of a small model.
        threads = min(self.num_threads or usable_cores(), max(num_items, 1))
        yield from in_order(call, range(num_items), threads=threads)


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # pragma: no cover  macOS
