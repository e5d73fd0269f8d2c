"""Every code block of the documentation runs: a reader who types what a page says sees what the page says.

Python blocks run in order, in one namespace for each page; a `text` block right after one is what it prints. Console
blocks run in bash, and what stands under a command must be in its output (`…` is anything). `fma serve` starts a
server of the page's own, on another port than the one that is written; what is in docs/how-to is for people whose
server has run before, so there it finds a database. A block right after "`name`:" is written into
the file of that name, and `pip install --editable .` installs that project for the page, without its dependencies.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.docs.page import PAGES, REPOSITORY, Block, blocks_of, commands_of, name_of
from tests.docs.python_session import PythonSession
from tests.servers.fma import FmaInstall
from tests.servers.free_port import free_port
from tests.servers.process import ServerProcess

pytestmark = pytest.mark.processes

# What a test cannot or should not do: build environments, use the network, run containers or the tests themselves, use
# a database that is not there.
# Targets of make are looked up in the Makefile instead, and test_examples.py runs the programs in examples/.
NOT_RUN = (
    "make ",
    ". .venv/",
    "git ",
    "pip ",
    "docker ",
    ".ci/run",
    "python -m pytest",
    "fma demo",
    "python examples/",
    "fma manage ",
    "cp .env",
)
SERVE = re.compile(r"((?:[A-Z_0-9]+=\S+ )*)fma serve(.*)", re.DOTALL)
DASK = re.compile(r"dask (?:scheduler|worker) .*")
WRITTEN_ADDRESS = "127.0.0.1:8000"
WRITTEN_MACHINES = re.compile(r"10\.0\.0\.[12]")
WRITTEN_DASK_PORT = "8786"
INSTALL_HERE = "pip install --editable ."
LANGUAGES = {"console", "python", "text", "json", "http", "mermaid", "env", "yaml", "toml"}
# A release is made by hand, and takes hours.
BY_HAND = {"RELEASING.md"}

RUNNABLE = [
    page
    for page in PAGES
    if {"python", "console"} & {block.language for block in blocks_of(page)} and name_of(page) not in BY_HAND
]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_say_their_language(page: Path) -> None:
    assert {block.language for block in blocks_of(page)} <= LANGUAGES


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    for name in ("examples", "benchmarks"):
        (folder / name).symlink_to(REPOSITORY / name)
    with contextlib.closing(Reader(page, folder)) as reader:
        reader.read(blocks_of(page))


class Reader:
    """Somebody who types what a page says, in a folder of their own."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._page = page
        self._folder = folder
        self._server: ServerProcess | None = None
        self._port = free_port()
        self._dask_port = str(free_port())
        self._dask: list[ServerProcess] = []
        ours = ("FMA_", "DJANGO_SETTINGS_MODULE")
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self._env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self._env['PATH']}"
        self._env |= {"PYTHONUNBUFFERED": "1", "COLUMNS": "100"}
        self._python = PythonSession(folder=folder, env=self._env)

    def read(self, blocks: Sequence[Block]) -> None:
        printed = None
        for block in blocks:
            if block.file is not None:
                (self._folder / block.file).write_text(block.text)
                continue
            if block.language == "console":
                for command in commands_of(block):
                    where = f"{name_of(self._page)}, line {block.line}: {command.text}"
                    _compare(self._type(command.text), [self._here(line) for line in command.output], where)
            elif block.language == "text" and printed is not None:
                _compare(printed, self._here(block.text).splitlines(), f"{name_of(self._page)}:{block.line}")
            printed = self._run_python(block) if block.language == "python" else None

    def close(self) -> None:
        self._python.close()
        for process in self._dask:
            process.kill()
        if self._server is not None:
            self._server.stop()

    def _here(self, text: str) -> str:
        text = WRITTEN_MACHINES.sub("127.0.0.1", text).replace(WRITTEN_DASK_PORT, self._dask_port)
        return text.replace(WRITTEN_ADDRESS, f"127.0.0.1:{self._port}")

    def _run_python(self, block: Block) -> str:
        source = "\n" * (block.line - 1) + self._here(block.text)  # so that a traceback names the page's line
        return self._python.run(source, place=name_of(self._page))

    def _type(self, command: str) -> str | None:
        """Type a command and return its output; None for a command that is not run."""
        if command == INSTALL_HERE:
            return self._install_here()
        if command.startswith("make "):
            target = command.split()[1]
            assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE), command
        if command.startswith(NOT_RUN):
            return None
        command = self._here(command)
        if DASK.fullmatch(command):
            return self._start_dask(command)
        serve = SERVE.fullmatch(command)
        return self._serve(*serve.groups()) if serve else self._bash(command)

    def _install_here(self) -> str:
        installed = str(self._folder.with_name("installed"))
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation"]
        done = subprocess.run([*pip, "--target", installed, self._folder], capture_output=True, text=True)
        assert done.returncode == 0, f"{name_of(self._page)}: {INSTALL_HERE}\n{done.stdout}{done.stderr}"
        self._env["PYTHONPATH"] = installed
        return done.stdout

    def _bash(self, command: str) -> str:
        if command.startswith("curl ") and shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        after = self._folder.with_name("environment")
        script = f"set -eo pipefail\n{command}\nenv -0 > {after}"  # so that `export` lasts
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{name_of(self._page)}: {command}\n{done.stdout}"
        self._env = dict(pair.split("=", 1) for pair in after.read_text().split("\0") if pair)
        return done.stdout

    def _start_dask(self, command: str) -> str:
        log = self._folder.with_name(f"dask-{len(self._dask)}.log")
        arguments = [sys.executable, "-m", *command.split()]
        self._dask.append(ServerProcess(arguments, env=self._env, cwd=self._folder, log=log))
        return ""

    def _serve(self, assignments: str, options: str) -> str:
        if self._server is not None:
            self._server.stop()
        env = self._env | dict(pair.split("=", 1) for pair in assignments.split())
        arguments = [*options.split(), "--port", str(self._port)]
        if self._page.parent.name == "how-to" and not (data := self._folder / "fma-data").exists():
            with FmaInstall(data) as install:
                install.migrate()
        self._server = ServerProcess(
            [sys.executable, "-m", "fma_api.cli", "serve", *arguments],
            env=env,
            cwd=self._folder,
            log=self._folder.with_name("serve.log"),
        )
        self._server.wait_until(self._is_ready, "it says so and /readyz answers 200", limit_s=60)
        return self._server.log_text()

    def _is_ready(self) -> bool:
        if self._server is None or "Ctrl-C ends the server" not in self._server.log_text():
            return False
        try:
            url = f"http://127.0.0.1:{self._port}/readyz"
            # No certificates for http: reading them takes as long as twenty answers.
            return httpx.get(url, timeout=5, trust_env=False, verify=False).status_code == 200
        except httpx.TransportError:
            return False


def _compare(printed: str | None, expected: Sequence[str], where: str) -> None:
    """Every expected line is among the printed ones, in order."""
    if printed is None:
        return
    lines: Iterator[str] = iter(printed.splitlines())
    for wanted in expected:
        pattern = re.compile(re.escape(wanted.rstrip()).replace("…", ".*"))
        assert any(pattern.fullmatch(line.rstrip()) for line in lines), (
            f"{where}\nsays {wanted!r}; printed was\n{printed}"
        )
