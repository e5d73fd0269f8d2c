"""Fold on a Dask cluster: hand out the batches and take their results in order. The workers' side is batch.py.

Every wait here ends: with an answer, or with ClusterUnavailable when the scheduler is silent, when there has been no
worker for WORKERS_LIMIT_S, or when an answer could not be fetched in MAX_FETCHES tries. Only a batch that a living
worker computes may take as long as it needs; FMA_AGGREGATION_TIMEOUT_SECONDS ends its round.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from distributed import CancelledError, Client, Future, KilledWorker, Security

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
MAX_FETCHES = 3
"""How often an answer may be lost, with the worker that held it, before the round is postponed."""
BATCHES_PER_THREAD = 4
# The output of a batch is in a worker's memory before it goes to S3, and its results in the server's: some megabytes.
MAX_ITEMS = 64
MAX_RESULT_BYTES = 32 << 20


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files by which this machine and a cluster at tls://… know each other.

    ca: the certificates that all others are signed by. certificate, key: this machine's own.
    """

    ca: Path
    certificate: Path
    key: Path

    def security(self) -> Security:
        return Security(
            tls_ca_file=str(self.ca),
            tls_client_cert=str(self.certificate),
            tls_client_key=str(self.key),
            require_encryption=True,
        )


@contextmanager
def dask_executor(
    scheduler: str, *, tls: TlsFiles | None = None, remote: RemoteBlobs | None, check: Callable[[], None]
) -> Iterator[DaskExecutor]:
    """Connect to the scheduler at this address, and give an executor for one fold.

    tls: for an address that begins with tls://.
    remote: the store's remote side; None when its folder is on a disk that the workers share.
    check: called often while it waits; what it raises ends the fold.
    Raises ClusterUnavailable.
    """
    try:
        client = _BoundedClient(
            scheduler,
            timeout=CONNECT_LIMIT_S,
            set_as_default=False,
            name="fma",
            security=None if tls is None else tls.security(),
        )
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


class _BoundedClient(Client):
    """A client that stops connecting in time, also to a scheduler that accepts the connection and then says nothing.

    Dask's own `timeout` covers neither the handshake nor the sum of the steps.
    """

    async def _ensure_connected(self, timeout: float | None = None) -> None:
        await asyncio.wait_for(super()._ensure_connected(timeout=timeout), 2 * CONNECT_LIMIT_S)


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
        self._no_workers_since: float | None = None

    def run(self, work: Work[Any], job: Job, num_items: int) -> Iterator[Any]:
        if num_items == 0:
            return
        threads = self._wait_for_workers()
        run = uuid.uuid4().hex
        # A task, not scattered data: when the worker that holds it is gone, Dask makes it again.
        packed = self._submit(_itself, Packed.of(work, job, self._reach), key=f"fma-job-{run}")
        planned = min(MAX_ITEMS, -(-num_items // (BATCHES_PER_THREAD * threads)))
        size, first = 1, 0  # until a result shows how large they are
        waiting: deque[Future] = deque()
        try:
            while first < num_items or waiting:
                while first < num_items and len(waiting) <= 2 * threads:
                    last = min(first + size, num_items)
                    key = f"fma-batch-{run}-{first}"
                    waiting.append(self._submit(run_batch, packed, first, last, key=key))
                    first = last
                results = self._results(waiting.popleft(), waiting, job)
                size = min(planned, max(1, MAX_RESULT_BYTES // np.asarray(results[0]).nbytes))
                yield from results
        finally:
            if waiting and self._client.status == "running":
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
        """Wait for a batch, then fetch its answer; again when the answer was lost between the two."""
        for _ in range(MAX_FETCHES):
            self._wait_for(future, later)
            try:
                return self._fetch(future)
            except TimeoutError:
                # The worker that had the answer may be gone since. A TimeoutError of the task itself stays one.
                if future.status == "error":
                    raise
        raise self._unavailable(f"did not hand over a result in {MAX_FETCHES} tries of {ANSWER_LIMIT_S} s")

    def _wait_for(self, future: Future, later: Iterable[Future]) -> None:
        is_done = threading.Event()
        future.add_done_callback(lambda _: is_done.set())
        # The callback comes at once for an answer that was lost, and never a second time: `done` is what counts.
        while not future.done():
            if is_done.wait(POLL_S):
                is_done.clear()
                continue
            self._check()
            if self._num_threads() > 0:
                continue
            for other in later:
                if other.status == "error":  # its workers may have died of it
                    self._fetch(other)
            self._require_workers_in_time()

    def _fetch(self, future: Future) -> Done:
        """Fetch the answer of a batch that is done; raises what the batch raised, and TimeoutError if it was lost."""
        self._check()
        try:
            done: Done = future.result(timeout=ANSWER_LIMIT_S)
        except KilledWorker as error:
            raise WorkersKilled(
                f"{error.allowed_failures + 1} Dask workers died of the same batch; they may be short of memory"
            ) from error
        except CancelledError as error:
            raise self._lost() from error
        return done

    def _wait_for_workers(self) -> int:
        """Wait until the cluster has workers, and return how many threads they have."""
        while (threads := self._num_threads()) == 0:
            self._require_workers_in_time()
            self._check()
            time.sleep(POLL_S)
        return threads

    def _num_threads(self) -> int:
        """Ask the scheduler how many threads its workers have, and note since when there are none."""
        self._require_connection()
        try:
            identity = self._client.sync(
                self._client.scheduler.identity, n_workers=0, callback_timeout=ANSWER_LIMIT_S
            )
        except (OSError, TimeoutError) as error:
            raise self._unavailable(f"does not answer: {error}") from error
        threads = int(identity["total_threads"])
        if threads > 0:
            self._no_workers_since = None
        elif self._no_workers_since is None:
            self._no_workers_since = time.monotonic()
        return threads

    def _require_workers_in_time(self) -> None:
        since = self._no_workers_since
        if since is not None and time.monotonic() - since > WORKERS_LIMIT_S:
            raise self._unavailable(f"has had no worker for {WORKERS_LIMIT_S} s")

    def _submit(self, *task: Any, key: str) -> Future:
        self._require_connection()
        return self._client.submit(*task, key=key)

    def _require_connection(self) -> None:
        if self._client.status != "running":
            raise self._lost()

    def _lost(self) -> ClusterUnavailable:
        return self._unavailable("was lost in the middle of a fold")

    def _unavailable(self, what: str) -> ClusterUnavailable:
        return ClusterUnavailable(f"the Dask scheduler {self._scheduler} {what}", scheduler=self._scheduler)


def _itself(packed: Packed) -> Packed:
    return packed
