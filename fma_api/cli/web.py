"""`fma web`: the HTTP server alone."""

import os
import resource
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from fma_api.cli import address, data_folder, exposure
from fma_api.cli.parent_death import die_with
from fma_api.cli.signals import first_alone

if TYPE_CHECKING:
    from fma_api.front.front import Front

HostOption = Annotated[
    str,
    typer.Option("--host", help="The address or name to listen on; 0.0.0.0 listens on all."),
]
PortOption = Annotated[int, typer.Option("--port", min=1, max=65535, help="The port to listen on.")]

LEAST_CONNECTIONS = 1024
MOST_CONNECTIONS = 16 * 1024
"""Beside those that wait for news. One that says nothing is closed after 30 s, and takes a place until
then. Thousands of them are cheap to open."""
DESCRIPTORS_OF_THREADS = 1024


def web(
    data: data_folder.DataOption = data_folder.DEFAULT,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
) -> None:
    """Run the HTTP server alone, for a deployment that runs each part by itself.

    The database must be up to date (`fma manage migrate`), and FMA_SECRET_KEY must be the same as the worker's.
    FMA_WEB_WORKERS and FMA_WEB_THREADS limit how many requests are answered at one time, FMA_MAX_WAITERS how many
    clients wait for news.

    **Examples**

    ```
    fma web --host 0.0.0.0 --port 8000
    FMA_WEB_WORKERS=4 FMA_DATABASE_URL=postgres://… fma web
    ```
    """
    data_folder.use(data)
    exposure.refuse_unsafe(address.check_free(host, port))
    data_folder.require_migrated()
    run(host, port)


def run(host: str, port: int) -> None:
    """Answer requests until a signal comes, with Django set up and the database up to date."""
    import structlog
    from django.conf import settings
    from django.urls import get_resolver
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces, Loops
    from granian.log import LogLevels

    ip = address.check_free(host, port)  # once more: loading and migrating take a while
    exposure.warn(ip)
    get_resolver().url_patterns  # noqa: B018  # loads all that answers requests, once for all processes
    server = Granian(
        "fma_api.front.front:Front",
        address=ip,
        port=port,
        interface=Interfaces.RSGI,
        # Measured: a small post costs 92 µs here, and 150 with asyncio's own loop.
        loop=Loops.uvloop,
        http=HTTPModes.http1,  # what a reverse proxy speaks to the servers behind it
        websockets=False,  # the front speaks HTTP alone
        workers=settings.FMA_WEB_WORKERS,
        # For each process, in place of 1024 for all of them together.
        backpressure=_connections(settings.FMA_MAX_WAITERS),
        log_dictconfig=settings.LOGGING,
        log_level=LogLevels.error,
        workers_kill_timeout=10,
    )
    server.signal_handler_interrupt = first_alone(server.signal_handler_interrupt)  # type: ignore[method-assign]
    structlog.get_logger(__name__).info(
        "web_starting", url=address.url(host, port), processes=settings.FMA_WEB_WORKERS
    )
    server.serve(target_loader=partial(_load, os.getpid()), wrap_loader=False)  # type: ignore[arg-type]


def _load(parent: int) -> "Front":
    """The application, in a worker process of granian."""
    die_with(parent)
    import django
    from django.conf import settings

    django.setup()  # nothing is left to do in a fork; macOS and Python 3.14 spawn
    from fma_api.front.front import Front
    from fma_api.wsgi import application

    _open_many_files(_connections(settings.FMA_MAX_WAITERS) + DESCRIPTORS_OF_THREADS)
    return Front(
        application,
        threads=settings.FMA_WEB_THREADS,
        waiters=settings.FMA_MAX_WAITERS,
        bodies_per_address=settings.FMA_BODIES_PER_ADDRESS,
        bodies_per_client=settings.FMA_BODIES_PER_CLIENT,
    )


def _connections(waiters: int) -> int:
    """How many each process takes at one time: as many as it may have files, within bounds."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else hard - waiters - DESCRIPTORS_OF_THREADS
    return waiters + max(LEAST_CONNECTIONS, min(files, MOST_CONNECTIONS))


def _open_many_files(count: int) -> None:
    """Each connection is one; the usual limit of 1024 is meant for programs that do not know of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
