"""Folds on a Dask cluster: who wants what from which worker, in which order. The workers' side is dask_batch.py."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from distributed import CancelledError, Client, Future, KilledWorker

from fma_core.engine.executors import Work
from fma_core.engine.job import Job
from fma_django.dask.batch import Done, Packed, Reach, RemoteStore, SharedDisk, run_batch
from fma_django.errors import ClusterUnavailable, WorkersKilled
from fma_django.storage.blob_store import RemoteBlobs
from fma_django.storage.errors import StorageUnavailable

CONNECT_LIMIT_S = 10
WORKERS_LIMIT_S = 30
"""How long a fold waits for a first worker, or for another one when the last is gone, before the round is postponed."""
POLL_S = 0.5
ANSWER_LIMIT_S = 30
BATCHES_PER_THREAD = 4
# What a batch writes is in a worker's memory before it goes to S3, and its results in the server's: some megabytes.
MAX_ITEMS = 64
MAX_RESULT_BYTES = 32 << 20


@contextmanager
def dask_executor(
    scheduler: str, *, remote: RemoteBlobs | None, check: Callable[[], None]
) -> Iterator[DaskExecutor]:
    """An executor for one fold, connected to the scheduler at this address.

    remote: the store's remote side; None when its folder is on a disk that the workers share.
    check: called often while it waits; what it raises ends the fold.
    Raises ClusterUnavailable.
    """
    try:
        client = Client(scheduler, timeout=CONNECT_LIMIT_S, set_as_default=False, name="fma")
    except OSError as error:
        raise ClusterUnavailable(
            f"the Dask scheduler {scheduler} cannot be reached: {error}", scheduler=scheduler
        ) from error
    try:
        folder = uuid.uuid4().hex
        reach: Reach = SharedDisk() if remote is None else RemoteStore(folder)
        try:
            if remote is not None:
                remote.put_fragment(f"{folder}/{RemoteStore.WITNESS}", b"!")
            yield DaskExecutor(client, scheduler, reach=reach, remote=remote, check=check)
        finally:
            if remote is not None:
                with suppress(StorageUnavailable):  # the sweep removes them later
                    remote.remove_fragments(folder)
    finally:
        with suppress(OSError, TimeoutError):
            client.close(timeout=CONNECT_LIMIT_S)


class DaskExecutor:
    """An `Executor`: a few batches per thread of the cluster, only so many at a time, the results in order.

    Dask gives the batches of a worker that is gone to another one. Whoever does a batch, and however often, writes the
    same bytes.
    """

    def __init__(
        self,
        client: Client,
        scheduler: str,
        *,
        reach: Reach,
        remote: RemoteBlobs | None,
        check: Callable[[], None],
    ) -> None:
        self._client = client
        self._scheduler = scheduler
        self._reach = reach
        self._remote = remote
        self._check = check

    def run(self, work: Work[Any], job: Job, num_items: int) -> Iterator[Any]:
        if num_items == 0:
            return
        threads = self._wait_for_workers()
        run = uuid.uuid4().hex
        # A task, not scattered data: when the worker that holds it is gone, Dask makes it again.
        packed = self._client.submit(_itself, Packed.of(work, job, self._reach), key=f"fma-job-{run}")
        planned = min(MAX_ITEMS, -(-num_items // (BATCHES_PER_THREAD * threads)))
        size, first = 1, 0  # until a result shows how large they are
        waiting: deque[Future] = deque()
        try:
            while first < num_items or waiting:
                while first < num_items and len(waiting) <= 2 * threads:
                    last = min(first + size, num_items)
                    key = f"fma-batch-{run}-{first}"
                    waiting.append(self._client.submit(run_batch, packed, first, last, key=key))
                    first = last
                results = self._results(waiting.popleft(), waiting, job)
                size = min(planned, max(1, MAX_RESULT_BYTES // np.asarray(results[0]).nbytes))
                yield from results
        finally:
            if waiting:
                with suppress(OSError, TimeoutError, CancelledError):
                    self._client.cancel(list(waiting), force=True)

    def _results(self, future: Future, later: Iterable[Future], job: Job) -> list[Any]:
        done = self._done(future, later)
        if done.fragment and self._remote is not None:
            data = memoryview(self._remote.read_fragment(done.fragment))
            for written in done.writes:
                out = job.written_state if written.is_state else job.out
                out.write(data[: written.size_bytes], written.offset)
                data = data[written.size_bytes :]
        return done.results

    def _done(self, future: Future, later: Iterable[Future] = ()) -> Done:
        is_done = threading.Event()
        future.add_done_callback(lambda _: is_done.set())
        while True:
            has_workers_at = time.monotonic()
            while not is_done.wait(POLL_S):
                self._check()
                if self._num_threads():
                    has_workers_at = time.monotonic()
                    continue
                for other in later:
                    if other.status == "error":  # of this one they died, perhaps
                        self._done(other)
                if time.monotonic() - has_workers_at > WORKERS_LIMIT_S:
                    raise self._no_workers()
            try:
                done: Done = future.result(timeout=ANSWER_LIMIT_S)
                return done
            except KilledWorker as error:
                raise WorkersKilled(
                    f"{error.allowed_failures + 1} Dask workers died of the same batch; they may be short of memory"
                ) from error
            except CancelledError as error:
                raise self._unavailable("was lost in the middle of a fold") from error
            except TimeoutError:
                # The worker that had the result may be gone since. A TimeoutError of the task itself stays one.
                if future.status == "error":
                    raise
                self._check()
                is_done.clear()
                future.add_done_callback(lambda _: is_done.set())

    def _wait_for_workers(self) -> int:
        """The threads of the cluster, as soon as there are any."""
        limit = time.monotonic() + WORKERS_LIMIT_S
        while (threads := self._num_threads()) == 0:
            if time.monotonic() > limit:
                raise self._no_workers()
            self._check()
            time.sleep(POLL_S)
        return threads

    def _num_threads(self) -> int:
        if self._client.status != "running":
            raise self._unavailable("was lost in the middle of a fold")
        try:
            found = self._client.sync(
                self._client.scheduler.identity, n_workers=0, callback_timeout=ANSWER_LIMIT_S
            )
        except (OSError, TimeoutError) as error:
            raise self._unavailable(f"does not answer: {error}") from error
        return int(found["total_threads"])

    def _no_workers(self) -> ClusterUnavailable:
        return self._unavailable(f"has had no worker for {WORKERS_LIMIT_S} s")

    def _unavailable(self, what: str) -> ClusterUnavailable:
        return ClusterUnavailable(f"the Dask scheduler {self._scheduler} {what}", scheduler=self._scheduler)


def _itself(packed: Packed) -> Packed:
    return packed
