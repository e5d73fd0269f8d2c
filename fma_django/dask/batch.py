"""Do a batch of neighbouring items of a fold in a Dask worker, over the disk or the store that all machines share.

Nothing here imports Dask, and nothing that comes with a task says where the store is or how to get in: a worker's
storage settings are its own environment.
"""

from __future__ import annotations

import os
import pickle
import socket
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from django.conf import settings

from fma_core.engine.executors import Work
from fma_core.engine.job import FileOutput, Job, Output
from fma_core.kernels import one_blas_thread
from fma_django.errors import ClusterUnavailable
from fma_django.storage.choose import SETTINGS
from fma_django.storage.errors import BlobMissing
from fma_django.storage.remote_file import keep_chunks, remote_blobs

# A chunk of float32. Much more, and 1000 updates would push out of the cache what is not yet read.
COLUMNS_AHEAD = 2**18


def versions() -> dict[str, str]:
    """The versions that must be equal on all machines: other code may do other things with what was pickled here."""
    return {"fma": version("federated-model-aggregation"), "numpy": np.__version__}


@dataclass(frozen=True)
class Written:
    """A stretch of a fragment, and its place in the result."""

    is_state: bool
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Done:
    """The results of a batch, in the order of its items, and the fragment that holds their output, if there is one."""

    results: list[Any]
    fragment: str = ""
    writes: tuple[Written, ...] = ()


class Reach(Protocol):
    """A way for a worker to reach the files of a job. It is pickled."""

    def do(self, work: Work[Any], job: Job, items: range) -> Done: ...


@dataclass(frozen=True)
class Packed:
    """Work and job for another machine, which compares the versions before it unpickles the rest."""

    versions: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, work: Work[Any], job: Job, reach: Reach) -> Packed:
        return cls(versions(), pickle.dumps((work, job, reach), protocol=pickle.HIGHEST_PROTOCOL))


def run_batch(packed: Packed, first: int, last: int) -> Done:
    """Do the items from `first` up to `last`, not included: the task that Dask runs."""
    if packed.versions != versions():
        raise ClusterUnavailable(
            f"the Dask worker on {socket.gethostname()} has {versions()}, the server has {packed.versions}; "
            "they must be the same"
        )
    # From the server of a cluster that is trusted and closed, as all that Dask runs.
    work, job, reach = pickle.loads(packed.body)  # noqa: S301
    with one_blas_thread():
        done: Done = reach.do(work, job, range(first, last))
    return done


@dataclass(frozen=True)
class SharedDisk:
    """The store's folder is on a disk that is mounted under the same path everywhere; results are written in place."""

    def do(self, work: Work[Any], job: Job, items: range) -> Done:
        # The server has just made this file. Without this look every update would pass for a lost one.
        if isinstance(job.out, FileOutput) and not job.out.path.exists():
            raise ClusterUnavailable(
                f"the Dask worker on {socket.gethostname()} does not see {job.out.path.parent}; "
                "the storage folder must be on a disk that all machines share, under the same path"
            )
        with job:
            return Done([work(job, item) for item in items])


@dataclass(frozen=True)
class RemoteStore:
    """The store is on another machine; what is written goes there as a fragment.

    folder: that of the fragments, which holds one from the server from the start.
    """

    folder: str

    WITNESS = "witness"

    def do(self, work: Work[Any], job: Job, items: range) -> Done:
        _take_settings_from_environment()
        self._require_same_store()
        keep_chunks()
        weights, state = _Collected(), _Collected()
        job.out, job.state_out = weights, None if job.state_out is None else state
        try:
            # Files are opened when they are first read; the server has checked them all.
            results = _results(work, job, items)
        finally:
            job.close()
        pieces = [*weights.pieces, *state.pieces]
        if not pieces:
            return Done(results)
        name = f"{self.folder}/{items.start}-{items.stop}"
        remote_blobs().put_fragment(name, b"".join(data for _, data in pieces))
        written = [Written(False, offset, len(data)) for offset, data in weights.pieces]
        written += [Written(True, offset, len(data)) for offset, data in state.pieces]
        return Done(results, name, tuple(written))

    def _require_same_store(self) -> None:
        try:
            remote_blobs().read_fragment(f"{self.folder}/{self.WITNESS}")
        except BlobMissing as error:
            raise ClusterUnavailable(
                f"the Dask worker on {socket.gethostname()} uses another store than the server; "
                "FMA_STORAGE_URL must be the same on all machines"
            ) from error


def _results(work: Work[Any], job: Job, items: range) -> list[Any]:
    """Do the items while the input of the next ones is fetched: many requests at a time, but not too far ahead."""
    coming = iter(items)
    ahead = 0
    results: list[Any] = []
    for item in items:
        while ahead < COLUMNS_AHEAD and (following := next(coming, None)) is not None:
            for part in work.columns_of(job, following):
                job.fetch_ahead(part)
                ahead += part.num_columns
        results.append(work(job, item))
        ahead -= sum(part.num_columns for part in work.columns_of(job, item))
    return results


class _Collected(Output):
    """The output of a batch in memory, until it is sent in one request."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []

    def write(self, data: bytes | memoryview, offset: int) -> None:
        self.pieces.append((offset, bytes(data)))

    def close(self) -> None:
        pass


def _take_settings_from_environment() -> None:
    """Configure the storage of a process that is not a server; it needs none of a server's secrets."""
    if settings.configured:
        return
    from_environment = {name: os.environ[name] for name in SETTINGS if os.environ.get(name)}
    if "FMA_STORAGE_URL" not in from_environment:
        raise ClusterUnavailable(
            f"the Dask worker on {socket.gethostname()} was started without FMA_STORAGE_URL"
        )
    settings.configure(**from_environment)
