"""`fma worker`: the worker alone."""

import multiprocessing
import signal

from fma_api.cli import data_folder
from fma_api.cli.children import how_it_ended
from fma_api.cli.parent_death import bind_forked_children
from fma_api.cli.problem import Problem
from fma_api.cli.signals import STOPPING, first_alone


def worker(data: data_folder.DataOption = data_folder.DEFAULT) -> None:
    """Run a worker alone: the processes that aggregate rounds.

    Run any number of workers, on any machine that can reach the database and the storage. FMA_WORKER_PROCESSES says how
    many rounds one worker aggregates at one time. After SIGTERM a worker finishes its round, then exits.

    **Examples**

    ```
    fma worker
    FMA_WORKER_PROCESSES=4 FMA_DATABASE_URL=postgres://… fma worker
    ```
    """
    data_folder.use(data)
    data_folder.require_migrated()
    run()


def run() -> None:
    """Aggregate rounds until a signal comes, with Django set up and the database up to date."""
    bind_forked_children()
    import structlog
    from django.conf import settings
    from django.core.management import call_command

    from fma_core import kernels
    from fma_django.work import tasks  # noqa: F401

    # As the import: before django-q forks, otherwise the first round of each of its processes waits for it.
    kernels.load()
    call_command("qcluster")  # returns when its guard, a child process, is up
    stop = first_alone(signal.getsignal(signal.SIGTERM))  # type: ignore[arg-type]
    for each in STOPPING:
        signal.signal(each, stop)
    log = structlog.get_logger(__name__)
    log.info("worker_ready", processes=settings.FMA_WORKER_PROCESSES)
    for guard in multiprocessing.active_children():
        guard.join()  # for as long as the worker runs
        if guard.exitcode:
            raise Problem(f"the worker's guard ended {how_it_ended(guard.exitcode)}")
    log.info("worker_stopped")
