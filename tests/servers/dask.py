"""A real Dask cluster: `dask scheduler` and `dask worker` as processes of a test's own.

with DaskCluster(folder) as cluster:
    cluster.start_workers(2)
    cluster.workers[0].kill()
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.servers.fma import REPOSITORY
from tests.servers.forks import CAN_FORK, Forks
from tests.servers.free_port import free_port
from tests.servers.process import ServerProcess

if TYPE_CHECKING:
    from fma_django.dask.executor import TlsFiles

DASK = (sys.executable, "-m", "dask")
START_LIMIT_S = 60
# What a process does that is idle: samples of its own stack, and a look at its event loop 50 times a second. Measured:
# with them a scheduler and two workers take 1.8 s of CPU in 15 s, else 0.4 s.
QUIET = {
    "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "false",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "false",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
}
# Loading this takes a scheduler or a worker 1.5 s of CPU, and a run starts twenty.
DASK_FORKS = Forks(
    "distributed.cli.dask_scheduler",
    "distributed.cli.dask_worker",
    "distributed.http",
    "fma_core.simulation",
    "fma_django.dask",
    env=QUIET,
)


class DaskCluster(AbstractContextManager["DaskCluster"]):
    """A scheduler, and workers of one thread each. Leaving `with` kills them all.

    env: for the workers, and for them alone; nothing of the tests' own FMA_* variables comes to them.
    tls: the files of the scheduler, the workers and the tests, if they are to speak TLS.
    """

    def __init__(
        self, folder: Path, env: Mapping[str, str] | None = None, *, tls: TlsFiles | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        own = {name: value for name, value in os.environ.items() if not name.startswith(("FMA_", "DJANGO_"))}
        self._env = own | QUIET | dict(env or {})
        # Dask reads its own variables while it is loaded.
        has_settings = any(name.startswith("DASK_") for name in env or {})
        self._forks = DASK_FORKS if CAN_FORK and not has_settings else None
        self._port = free_port()
        self.address = f"{'tcp' if tls is None else 'tls'}://127.0.0.1:{self._port}"
        self._tls = tls
        self.workers: list[ServerProcess] = []
        # Should the tests be killed, the scheduler ends in the end, and the workers with it.
        options = ["--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard", *self._tls_options]
        self.scheduler = self._start("scheduler", *options, "--idle-timeout", "30 minutes", name="scheduler")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.workers, self.scheduler]:
            process.kill()

    def start_workers(self, number: int) -> None:
        """Start this many more, and wait until all that run are there."""
        for _ in range(number):
            self.start_worker(self.address, *self._tls_options)
        self.wait_for_workers(sum(worker.exit_code is None for worker in self.workers))

    def start_worker(self, address: str, *options: str) -> ServerProcess:
        """Start one more, which asks for the scheduler at this address, and do not wait for it."""
        name = f"worker-{len(self.workers)}"
        own = ["--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", "--name", name, "--no-nanny"]
        own += ["--local-directory", str(self.folder / name), "--death-timeout", "60"]
        self.workers.append(self._start("worker", address, *own, *options, name=name))
        return self.workers[-1]

    def wait_for_workers(self, number: int) -> None:
        from distributed import Client  # takes a second, which only tests with a cluster should

        security = None if self._tls is None else self._tls.security()
        with Client(self.address, timeout=START_LIMIT_S, set_as_default=False, security=security) as client:
            client.wait_for_workers(number, timeout=START_LIMIT_S)

    @property
    def _tls_options(self) -> list[str]:
        if self._tls is None:
            return []
        files = (
            "--tls-ca-file",
            self._tls.ca,
            "--tls-cert",
            self._tls.certificate,
            "--tls-key",
            self._tls.key,
        )
        return [str(each) for each in files]

    def _start(self, *arguments: str, name: str) -> ServerProcess:
        log = self.folder / f"{name}.log"
        return ServerProcess([*DASK, *arguments], env=self._env, cwd=REPOSITORY, log=log, forks=self._forks)
