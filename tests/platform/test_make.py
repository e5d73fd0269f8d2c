"""The Makefile's own word about itself, and what CI runs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> str:
    done = subprocess.run(["make", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout


def test_make_alone_says_what_can_be_made() -> None:
    said = make()

    assert said == make("help")
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    assert targets == set(re.findall(r"^make ([a-z-]+) +[A-Z]", said, re.M))
    assert {"demo", "test", "test-core", "test-fast", "lint", "serve", "help"} <= targets


@pytest.mark.parametrize("target", ["demo", "test", "test-core", "test-fast", "lint", "serve"])
def test_each_target_does_its_own_set_up(tmp_path: Path, target: str) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)

    planned = subprocess.run(
        ["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout

    assert planned.index("-m venv .venv") < planned.index("pip install") < planned.rindex(".venv/bin/")


def test_a_second_time_nothing_is_installed(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("bin/python", "for-demo", "for-development"):
        (tmp_path / ".venv" / name).touch()

    planned = subprocess.run(
        ["make", "-n", "test"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout

    assert "pip install" not in planned
    assert "pytest" in planned


@pytest.mark.parametrize("stamp", [".venv/for-demo", ".venv/for-development"])
def test_set_up_takes_the_locked_versions_and_others_where_these_cannot_be_had(
    tmp_path: Path, stamp: str
) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$*" >>calls\ncase "$*" in *--constraint*) exit 1;; esac\n')
    python.chmod(0o755)

    done = subprocess.run(["make", stamp], cwd=tmp_path, capture_output=True, text=True, check=True)

    locked, unlocked = (tmp_path / "calls").read_text().splitlines()
    assert "--constraint constraints.txt --editable" in locked
    assert "--constraint" not in unlocked
    assert "The versions of constraints.txt cannot be had here" in done.stdout


def planned_runs(target: str) -> list[str]:
    """The commands of a target that run tests, as the shell gets them."""
    return [line for line in make("-n", target).splitlines() if "-m pytest" in line]


def test_the_stages_run_from_the_quick_to_the_slow() -> None:
    planned = make("-n", "test")
    stages = [
        "ruff check",
        "mypy",
        "lint-imports",
        "Core:",
        "Fast:",
        "Processes:",
        "PostgreSQL:",
        "coverage report",
    ]

    assert [planned.index(stage) for stage in stages] == sorted(planned.index(stage) for stage in stages)


def test_every_test_is_in_one_of_the_stages() -> None:
    core, fast, processes, postgres = planned_runs("test")

    assert core.endswith(" tests/core")
    assert " -m " not in core.partition("-m pytest")[2]
    [long] = re.findall(r'--ignore=tests/core -m "([a-z0-9 ]+)"$', processes)
    assert fast.endswith(f'--ignore=tests/core -m "not ({long})"')
    assert "-p tests.servers.use_postgres" in postgres


def test_only_the_whole_measures_coverage() -> None:
    assert ["--cov " in run for run in planned_runs("test")] == [True, True, False, False]
    assert not any("--cov" in run for target in ("test-core", "test-fast") for run in planned_runs(target))


def test_what_is_run_again_on_postgresql_is_there() -> None:
    paths = re.findall(r"\btests/[\w/.]+", planned_runs("test")[-1])

    assert paths
    assert all((REPOSITORY / path).exists() for path in paths)


def test_ci_runs_make_test_and_requires_torch() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()

    assert "set -euo pipefail" in script
    assert script.index("torch==2.13.0") < script.index("REQUIRE_TORCH=1 make test")


def test_the_lowest_versions_run_tests_that_are_there_and_none_that_is_long() -> None:
    commands = make("-n", "test-lowest").replace("\\\n", "").splitlines()
    [planned] = [line for line in commands if "constraints-lowest.txt" in line]

    _, _, paths = planned.partition("-W default::hypothesis.errors.HypothesisWarning ")
    assert "tests/core" in paths.split()
    assert all((REPOSITORY / path).is_dir() for path in paths.split())
    assert '-m "not (' in planned
