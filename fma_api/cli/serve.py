"""`fma serve`: everything that one machine needs, in one command."""

import http.client
import os
import shlex
import time
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from fma_api.cli import address, data_folder, exposure, web, worker
from fma_api.cli.children import Children
from fma_api.cli.problem import Problem
from fma_api.cli.web import HostOption, PortOption

READY_WITHIN_SECONDS = 60
LOOPBACK = {"localhost", "127.0.0.1", "::1", "[::1]"}


def serve(
    data: data_folder.DataOption = data_folder.DEFAULT,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
) -> None:
    """Run a whole server on this machine: an HTTP server and a worker, with their data in one folder.

    The command creates the folder, its secret key and its database if they are missing. Ctrl-C or SIGTERM stops
    everything. If the HTTP server or the worker ends by itself, the command stops the other and exits with code 1.

    **Examples**

    ```
    fma serve
    fma serve --data /srv/fma --host 0.0.0.0 --port 80
    ```
    """
    data = data_folder.use(data)
    ip = address.check_free(host, port)
    data_folder.make_ready(data)
    exposure.refuse_unsafe(ip)
    # Both children need it, and the HTTP server more: what is loaded here is loaded once.
    import fma_django.work.tasks  # noqa: F401

    url = address.url(host, port)
    with Children() as children:
        http_server = children.start("fma web", partial(web.run, host, port), name="the HTTP server")
        children.start("fma worker", worker.run, name="the worker")
        _wait_until_ready(children, http_server, url)
        if not children.is_stopping:
            _welcome(url, data, host, ip)
        children.wait()


def _wait_until_ready(children: Children, http_server: BaseProcess, url: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while not children.is_stopping and not _answers(url):
        children.check()
        if time.monotonic() > deadline:
            raise Problem(
                f"{http_server.name} did not answer at {url}/healthz within {READY_WITHIN_SECONDS} seconds"
            )
        time.sleep(0.05)


def _answers(url: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/healthz")
        # 400 when FMA_ALLOWED_HOSTS has only the names of a proxy: somebody answers all the same.
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _welcome(url: str, data: Path, host: str, ip: str) -> None:
    from django.conf import settings
    from django.http.request import split_domain_port, validate_host

    folder = shlex.quote(os.path.relpath(data) if data.is_relative_to(Path.cwd()) else str(data))
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"[bold green]fma is ready[/bold green] at [bold]{url}[/bold]  (API documentation: {url}/api/docs/)"
    )
    console.print(f"Data is kept in {data}. Add a user, in another terminal, and get a token:")
    console.print(f"    fma user add NAME --data {folder}")
    console.print(f"For the admin at {url}/admin/:")
    console.print(f'    echo "$PASSWORD" | fma user add NAME --owner --password-stdin --data {folder}')
    if not validate_host(split_domain_port(urlsplit(url).netloc)[0], settings.ALLOWED_HOSTS):
        console.print(
            f"Only requests to the names in FMA_ALLOWED_HOSTS are answered ({', '.join(settings.ALLOWED_HOSTS)}), and "
            "this address is none of them."
        )
    elif _is_for_others(host):
        console.print("Others reach it only by the host names in FMA_ALLOWED_HOSTS; set that to yours.")
    if exposure.is_open_to_strangers(ip):
        console.print(f"[bold yellow]{exposure.OPEN_REGISTRATION}[/bold yellow]")
    console.print("Ctrl-C ends the server.")


def _is_for_others(host: str) -> bool:
    from django.conf import settings

    return host not in LOOPBACK and set(settings.ALLOWED_HOSTS) <= LOOPBACK
