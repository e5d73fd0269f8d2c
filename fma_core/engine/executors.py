"""Executors of a fold: in this thread, in several threads, or (outside this package) on other machines.

Work is cut into items that do not depend on each other. An executor gives their results in the order of the items, so
it cannot change a bit of the result.
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
    """The work on each item; it pickles, and takes all its input from the job."""

    def __call__(self, job: Job, item: int) -> ResultT: ...

    def columns_of(self, job: Job, item: int) -> Sequence[Cut]:
        """The columns that an item reads, so that a slow source can fetch them ahead."""


class Executor(Protocol):
    def run(self, work: Work[Any], job: Job, num_items: int) -> Iterator[Any]:
        """Give work(job, 0), work(job, 1), … in this order, whichever is done first."""


@dataclass(frozen=True)
class Serial:
    """One item after the other, in the caller's thread."""

    def run(self, work: Work[Any], job: Job, num_items: int) -> Iterator[Any]:
        for item in range(num_items):
            yield work(job, item)


@dataclass(frozen=True)
class Threads:
    """Several items at a time. num_threads: None or 0 for one thread on each core that this process may use."""

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
