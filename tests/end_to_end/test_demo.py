"""`fma demo` as a person runs it: what it prints, what it leaves behind, and every way for it to end."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from fma_core import read_file
from tests.servers.fma import REPOSITORY
from tests.servers.process import ServerProcess

# Not importorskip: importing both takes seconds, and only the demo's own process needs them.
MISSING = [name for name in ("sklearn", "matplotlib") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.skipif(bool(MISSING), reason=f"the demo needs {' and '.join(MISSING)}"),
]

ROUNDS = 8
LIMIT_S = 240  # on a quiet machine it takes about fifteen seconds
OK = re.compile(
    rf"demo ok rounds={ROUNDS} clients=5 accuracy=(?P<accuracy>0\.\d{{3}}) "
    r"centralised=(?P<centralised>0\.\d{3}) best_single=(?P<best_single>0\.\d{3}) seconds=\d+\.\d"
)


@dataclass
class Demo:
    """A demo that runs, or ran, over a folder; its log is what it printed."""

    process: ServerProcess
    data: Path

    @property
    def lines(self) -> list[str]:
        return self.process.log_text().splitlines()

    def wait_for(self, text: str) -> None:
        self.process.wait_until(lambda: text in self.process.log_text(), repr(text), limit_s=LIMIT_S)

    def client_pids(self) -> list[int]:
        return [
            pid
            for pid in self.process.members()
            if b"fma_api.cli.demo.client" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]


class StartDemo:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Demo] = []

    def __call__(self, *arguments: str, env: dict[str, str] | None = None) -> Demo:
        data = self.folder / "data"
        process = ServerProcess(
            [sys.executable, "-m", "fma_api.cli", "demo", f"--data={data}", *arguments],
            env={**os.environ, **(env or {})},
            cwd=REPOSITORY,
            log=self.folder / f"demo-{len(self.started)}.log",
        )
        self.started.append(Demo(process, data))
        return self.started[-1]


@pytest.fixture(scope="module")
def shared_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDemo]:
    start = StartDemo(tmp_path_factory.mktemp("demo"))
    yield start
    for demo in start.started:
        demo.process.kill()


@pytest.fixture(scope="module")
def finished(shared_start: StartDemo) -> Demo:
    """A demo that ended well, in an environment that names a database which is not there."""
    demo = shared_start(
        f"--rounds={ROUNDS}", "--seed=4", env={"FMA_DATABASE_URL": "postgres://nowhere.invalid/x"}
    )
    assert demo.process.wait(limit_s=LIMIT_S) == 0, demo.process.log_text()
    return demo


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    start = StartDemo(tmp_path)
    yield start
    for demo in start.started:
        demo.process.kill()


def test_its_last_line_says_how_good_the_federation_is(finished: Demo) -> None:
    said = OK.fullmatch(finished.lines[-1])
    assert said, finished.lines[-1]
    assert float(said["best_single"]) < float(said["accuracy"])
    assert float(said["accuracy"]) >= 0.95 * float(said["centralised"])


def test_it_prints_a_plain_line_for_each_round_where_there_is_no_terminal(finished: Demo) -> None:
    rounds = [line for line in finished.lines if line.startswith("round ")]
    assert len(rounds) == ROUNDS
    assert re.fullmatch(r"round  1/8  clients 5/5  test accuracy 0\.\d{3}  \d+\.\d\d s", rounds[0])
    assert "\x1b" not in finished.process.log_text()


def test_it_leaves_the_published_weights_and_the_picture(finished: Demo) -> None:
    folder = finished.data / "demo-1"
    weights = read_file(folder / "digits-1.1.0.safetensors")
    assert {name: array.shape for name, array in weights.items()} == {
        "hidden/bias": (64,), "hidden/weights": (64, 64), "output/bias": (10,), "output/weights": (64, 10),
    }  # fmt: skip
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    for name in ("digits-1.1.0.safetensors", "demo.png"):
        assert str(folder / name) in finished.process.log_text()


def test_it_leaves_no_process(finished: Demo) -> None:
    assert finished.process.members() == set()


def test_kept_it_repeats_the_bits_and_lets_one_look_around(shared_start: StartDemo, finished: Demo) -> None:
    again = shared_start(f"--rounds={ROUNDS}", "--seed=4", "--keep")
    again.wait_for("demo ok")
    assert again.lines[-1].split(" seconds=")[0] == finished.lines[-1].split(" seconds=")[0]
    first, second = (again.data / f"demo-{number}" / "digits-1.1.0.safetensors" for number in (1, 2))
    assert first.read_bytes() == second.read_bytes()

    printed = again.process.log_text()
    admin = re.search(r"http://127\.0\.0\.1:\d+/admin/", printed)
    login = re.search(r"Log in as (\S+) with the password (\S+)", printed)
    assert admin is not None
    assert login is not None
    assert _can_log_in(admin[0], *login.groups())
    assert again.process.stop(signal.SIGINT) == 0


def test_a_client_that_dies_ends_it_at_once_and_is_named(start_demo: StartDemo) -> None:
    demo = start_demo("--rounds=15", "--clients=2")
    demo.wait_for("round  2/")
    os.kill(demo.client_pids()[0], signal.SIGKILL)
    assert demo.process.wait(limit_s=30) == 1
    assert re.fullmatch(
        r"demo failed: client \d ended by signal SIGKILL; see .*/client-\d\.log", demo.lines[-1]
    )
    assert demo.process.members() == set()


def test_killed_in_a_round_it_leaves_no_process(start_demo: StartDemo) -> None:
    demo = start_demo("--rounds=15", "--clients=2")
    demo.wait_for("round  1/")
    assert len(demo.client_pids()) == 2
    assert demo.process.stop(signal.SIGKILL) == -9


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_the_server_starts_it_leaves_no_process(
    start_demo: StartDemo, how: signal.Signals
) -> None:
    demo = start_demo()
    demo.wait_for("Meanwhile: ")
    assert len(demo.process.members()) == 2
    assert demo.process.stop(how) == 130
    assert demo.lines[-1] == "demo failed: interrupted"


def test_an_address_in_use_ends_it_with_a_sentence(start_demo: StartDemo, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        demo = start_demo(f"--port={port}")
        assert demo.process.wait(limit_s=LIMIT_S) == 1
    assert demo.lines[-1].startswith(f"demo failed: port {port} of 127.0.0.1 is in use")


def _can_log_in(admin: str, username: str, password: str) -> bool:
    with httpx.Client(follow_redirects=True) as browser:
        login = browser.get(admin)
        form = {
            "username": username,
            "password": password,
            "csrfmiddlewaretoken": browser.cookies["fma_csrf"],
        }
        page = browser.post(login.url, data=form, headers={"Referer": str(login.url)})
        return page.status_code == 200 and "/login/" not in str(page.url)
