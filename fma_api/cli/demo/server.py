"""A real server for the demo: `fma serve` over a folder of its own, and one user who may also see the admin."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from fma_api.cli import address
from fma_api.cli.demo.processes import Processes
from fma_api.cli.problem import Problem

HOST = "127.0.0.1"
USERNAME = "demo"
READY_WITHIN_SECONDS = 120  # `fma serve` gives up earlier, and says why


@dataclass(frozen=True)
class Login:
    username: str
    password: str
    token: str


def start(processes: Processes, folder: Path, *, port: int) -> str:
    """Start the server and its worker; answers its address at once. Port 0 is any free one."""
    port = port or _free_port()
    address.check_free(HOST, port)
    processes.start(
        "the server",
        ["fma_api.cli", "serve", "--data", str(folder), "--host", HOST, "--port", str(port)],
        env=environment(),
        log=folder / "server.log",
    )
    return address.url(HOST, port)


def wait_until_ready(processes: Processes, url: str) -> None:
    """Return when the server answers and a worker gave a sign of life."""
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    # One client for all attempts, without the system's certificates: making one takes longer than an attempt.
    with httpx.Client(timeout=5, verify=False, trust_env=False) as client:  # noqa: S501
        while (missing := _missing(client, url)) is not None:
            processes.check()
            if time.monotonic() > deadline:
                raise Problem(f"the server was not ready after {READY_WITHIN_SECONDS} seconds: {missing}")
            time.sleep(0.05)


def add_user(folder: Path) -> Login:
    """Make the demo's user, as a person would."""
    password = secrets.token_urlsafe(12)
    command = [sys.executable, "-m", "fma_api.cli", "user", "add", USERNAME, "--staff", "--password-stdin"]
    try:
        done = subprocess.run(
            [*command, "--data", str(folder)],
            env=environment(),
            input=f"{password}\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=READY_WITHIN_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise Problem(f"the demo's user was not made within {READY_WITHIN_SECONDS} seconds") from error
    if done.returncode:
        raise Problem(f"the demo's user could not be made: {done.stderr.strip()}")
    return Login(USERNAME, password, json.loads(done.stdout)["token"])


def environment() -> dict[str, str]:
    """Ours without FMA_*: the demo must not find the database or the storage of a server that is in use."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FMA_")}


def _missing(client: httpx.Client, url: str) -> str | None:
    try:
        answer = client.get(f"{url}/readyz")
    except httpx.TransportError as error:
        return str(error)
    return None if answer.status_code == httpx.codes.OK else answer.text


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
