"""A hundred thousand hostile inputs in each run of all tests, and a look at the fuzzer itself.

Every campaign is a process of its own: its memory is measured, and one that hangs ends with its stacks.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import ACCEPTED, Fault, Target, prepare_bounds, run, shares
from tests.fuzz.mutations import fuzzed_json, mutated_bytes, mutated_query, mutated_text
from tests.servers.fma import REPOSITORY
from tests.servers.postgres import PostgresServer

# In CI the inputs depend on the commit alone.
SEED = 1 if "CI" in os.environ else random.randrange(10**6)


def require_no_fault(failures: Path, *arguments: str, **env: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seed", str(SEED), "--failures", str(failures), *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **env},
        timeout=280,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-8000:]}"


@pytest.mark.processes
def test_no_input_breaks_a_parser_or_the_server_or_what_an_owner_reads(tmp_path: Path) -> None:
    require_no_fault(tmp_path, "--inputs", "100000")


@pytest.mark.processes
def test_nor_on_postgres(tmp_path: Path, postgres_server: PostgresServer) -> None:
    require_no_fault(
        tmp_path,
        "--levels",
        "stack,sockets",
        "--inputs",
        "500",
        "--postgres",
        DATABASE_URL=postgres_server.url,
    )


@pytest.fixture
def _bounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import signal

    before = signal.getsignal(signal.SIGALRM)
    prepare_bounds()
    yield
    signal.signal(signal.SIGALRM, before)


def odd_numbers(random: Random) -> int:
    return random.randrange(10)


def refuse_three(number: int) -> str:
    if number == 3:
        raise ValueError("three")
    return ACCEPTED if number % 2 else "even"


def test_a_fault_is_written_down_and_found_again_by_its_number(_bounds: None, tmp_path: Path) -> None:
    target = Target("numbers/odd", odd_numbers, refuse_three)

    report = run([target], 100, seed=5, failures=tmp_path)

    (found,) = report.faults.values()
    number = int(found[0].partition("--number ")[2].split()[0])
    assert len(found) == report.outcomes["numbers/odd"]["FAULT ValueError"] == len(list(tmp_path.iterdir()))
    assert run([target], 100, seed=5, only_number=number).outcomes["numbers/odd"] == {"FAULT ValueError": 1}


def test_an_input_that_takes_too_long_is_a_fault(_bounds: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "INPUT_S", 0.02)

    def sleep(_: int) -> str:
        time.sleep(5)
        return ACCEPTED

    assert run([Target("slow/one", odd_numbers, sleep)], 1, seed=1).faults


def test_whatever_the_inputs_have_broken_is_a_fault(_bounds: None) -> None:
    def look() -> None:
        raise Fault("a file is left")

    report = run(
        [Target("numbers/all", odd_numbers, lambda _: ACCEPTED)], 10, seed=1, look=look, look_every=4
    )

    assert len(next(iter(report.faults.values()))) == 3


def test_a_target_that_takes_nothing_is_told(_bounds: None) -> None:
    report = run([Target("numbers/none", odd_numbers, lambda _: "400")], 300, seed=1)

    assert report.shallow == ["numbers/none"]


def test_every_input_is_somebodys() -> None:
    targets = [Target(f"t/{share}", odd_numbers, refuse_three, share) for share in (1.0, 2.5, 0.01)]
    assert sum(shares(targets, 1001).values()) == 1001


def test_mutations_differ_and_depend_on_their_number_alone() -> None:
    makers = (
        lambda r: fuzzed_json(r, {"a": [1, {"b": None}], "c": "text"}),
        lambda r: mutated_bytes(r, b"some bytes"),
        lambda r: mutated_text(r, "some text"),
        lambda r: mutated_query(r, [("page", "1"), ("tag", "gpu")]),
    )
    for make in makers:
        made = [make(Random(f"{number}")) for number in range(200)]
        assert made == [make(Random(f"{number}")) for number in range(200)]
        assert len(set(map(repr, made))) > 60
