"""Every code block of the documentation runs: a reader who types what a page says sees what the page says.

Python blocks run in order, in one namespace for each page; a `text` block right after one is what it prints. Console
blocks run in bash, and what stands under a command must be in its output (`…` is anything). `fma serve` starts a
server of the page's own, on another port than the one that is written. The first pages start with an empty folder, the
others are for people whose server has run before: there `fma` finds a database, and is a fork that is up at once.
Guides that begin with ANNAS_SERVER share one server and its user. A block right after "`name`:" is written into the
file of that name, and `pip install --editable '.[test]'` installs that project for the page, without its dependencies:
they are here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.docs.page import PAGES, REPOSITORY, Block, blocks_of, commands_of, name_of
from tests.docs.python_session import PythonSession
from tests.servers.fma import StartFma, put_migrated_into, without_numba
from tests.servers.forks import CAN_FORK, Forks, of_fma
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
INSTALL_HERE = "pip install --editable '.[test]'"
LANGUAGES = {"console", "nginx", "python", "text", "json", "http", "mermaid", "env", "yaml", "toml"}
# A release is made by hand, and takes hours.
BY_HAND = {"RELEASING.md"}
FIRST_PAGES = {"README.md", "docs/tutorial/first-federation.md"}
ANNAS_SERVER = ["fma serve", "fma user add anna --out anna.json"]
# Guides that begin with these commands too, and yet need a server of their own.
APART = {
    "docs/how-to/send-large-updates.md": "its model is number 1",
    "docs/how-to/write-a-client.md": "its model is number 1",
    "docs/how-to/write-an-aggregator.md": "the server must find the new aggregator",
}

RUNNABLE = [
    page
    for page in PAGES
    if {"python", "console"} & {block.language for block in blocks_of(page)} and name_of(page) not in BY_HAND
]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_say_their_language(page: Path) -> None:
    assert {block.language for block in blocks_of(page)} <= LANGUAGES


def test_a_guide_says_where_its_server_runs() -> None:
    """Two guides in one folder would write the same files, and number models and users on from the first one's."""
    for page in (REPOSITORY / "docs/how-to").glob("*.md"):
        for block in blocks_of(page):
            if block.language == "console" and any(SERVE.fullmatch(it.text) for it in commands_of(block)):
                text = "\n".join(page.read_text().splitlines()[: block.line])
                assert "empty folder" in " ".join(text.split()), name_of(page)


@dataclass(frozen=True)
class AnnasServer:
    """The server that guides share: the port it listens on, and the line that `fma user add anna` printed."""

    port: int
    anna: str


@pytest.fixture(scope="module")
def annas_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnnasServer]:
    with ExitStack() as stack:
        server = StartFma(tmp_path_factory.mktemp("guides"), stack)()
        port = int(server.base_url.rpartition(":")[2])
        yield AnnasServer(port, server.install.run("user", "add", "anna"))


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_page_runs(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    for name in ("examples", "benchmarks"):
        (folder / name).symlink_to(REPOSITORY / name)
    if name_of(page) not in FIRST_PAGES:
        (folder / "fma-data").mkdir()
        put_migrated_into(folder / "fma-data")
    with contextlib.closing(Reader(page, folder, partial(request.getfixturevalue, "annas_server"))) as reader:
        reader.read(blocks_of(page))


class Reader:
    """Somebody who types what a page says, in a folder of their own."""

    def __init__(self, page: Path, folder: Path, annas_server: Callable[[], AnnasServer]) -> None:
        self._page = page
        self._folder = folder
        self._annas_server = annas_server
        self._server: ServerProcess | None = None
        self._port = free_port()
        self._dask_port = str(free_port())
        self._dask: list[ServerProcess] = []
        ours = ("FMA_", "DJANGO_SETTINGS_MODULE")
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self._env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self._env['PATH']}"
        self._env |= {"PYTHONUNBUFFERED": "1", "COLUMNS": "100"}
        self._forks: Forks | None = None
        if CAN_FORK and name_of(page) not in FIRST_PAGES:
            self._forks = of_fma
            programs = folder.with_name("programs")
            programs.mkdir()
            of_fma.put_program(programs / "fma", "fma_api.cli")
            self._env["PATH"] = f"{programs}{os.pathsep}{self._env['PATH']}"
        self._python = PythonSession(folder=folder, env=self._env)

    def read(self, blocks: Sequence[Block]) -> None:
        printed = None
        for block in blocks:
            if block.file is not None:
                (self._folder / block.file).write_text(block.text)
                continue
            if block.language == "console":
                commands = commands_of(block)
                if name_of(self._page) not in APART and [it.text for it in commands] == ANNAS_SERVER:
                    self._use_annas_server()
                    continue
                for command in commands:
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

    def _use_annas_server(self) -> None:
        shared = self._annas_server()
        self._port = shared.port
        (self._folder / "anna.json").write_text(shared.anna)

    def _install_here(self) -> str:
        project = tomllib.loads((self._folder / "pyproject.toml").read_text())["project"]
        assert project["optional-dependencies"]["test"] == ["federated-model-aggregation[testing]"]
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
        self._dask.append(ServerProcess(arguments, env=self._server_env(), cwd=self._folder, log=log))
        return ""

    def _serve(self, assignments: str, options: str) -> str:
        if self._server is not None:
            self._server.stop()
        env = self._server_env() | dict(pair.split("=", 1) for pair in assignments.split())
        arguments = [*options.split(), "--port", str(self._port)]
        self._server = ServerProcess(
            [sys.executable, "-m", "fma_api.cli", "serve", *arguments],
            env=env,
            cwd=self._folder,
            log=self._folder.with_name("serve.log"),
            forks=self._forks,
        )
        self._server.wait_until(self._is_ready, "it says so and /readyz answers 200", limit_s=60)
        return self._server.log_text()

    def _server_env(self) -> dict[str, str]:
        if name_of(self._page) in FIRST_PAGES:
            return self._env
        # As the servers of other tests; what the page has installed comes first.
        paths = [self._env.get("PYTHONPATH"), str(without_numba())]
        return self._env | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}

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
