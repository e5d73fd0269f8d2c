"""The executor of the arithmetic, as the settings name it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fma_core.engine import Executor, Serial, Threads
from fma_django import conf
from fma_django.storage import get_store


@contextmanager
def chosen_executor(check: Callable[[float], None]) -> Iterator[Executor]:
    """The executor of FMA_EXECUTOR for one fold; whichever it is, results have the same bits.

    check: what it raises ends a wait for other machines. Raises ClusterUnavailable.
    """
    name = conf.current().executor
    if name == "serial":
        yield Serial()
    elif name == "dask":
        # Only now: an extra, and half a second of imports.
        from fma_django.dask.executor import TlsFiles, dask_executor

        now = conf.current()
        tls = None
        if now.dask_tls_ca and now.dask_tls_certificate and now.dask_tls_key:
            tls = TlsFiles(now.dask_tls_ca, now.dask_tls_certificate, now.dask_tls_key)
        with dask_executor(
            now.dask_scheduler, tls=tls, remote=get_store().remote(), check=lambda: check(0.0)
        ) as executor:
            yield executor
    else:
        yield Threads(conf.current().threads or None)


def reads_in_place() -> bool:
    """Whether the executor reads a remote store itself, so that nothing needs to be fetched for it."""
    return conf.current().executor == "dask"
