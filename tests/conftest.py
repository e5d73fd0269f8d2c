"""Rules of the whole test run; the environment is set in tests/environment.py."""

import gc
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# No deadlines, because a machine that runs other things too is not an error. In CI the examples are the same in every
# run, so that its result depends on the commit alone.
settings.register_profile(
    "fma", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fma")
TORCH_IS_INSTALLED = importlib.util.find_spec("torch") is not None
IS_TRACED = pytest.StashKey[bool]()
# A test that uses one of these starts a server, and belongs to the tier of those that do.
MARKS_OF_FIXTURES = {
    "fma_install": "processes",
    "fma_server": "processes",
    "postgres_server": "postgres",
    "s3_server": "s3",
}
# A long test is one with such a mark; its file names the mark, or a fixture that brings it.
LONG = {*MARKS_OF_FIXTURES.values(), "slow"}
NAMED_IN_LONG = re.compile("|".join(sorted({*MARKS_OF_FIXTURES, *LONG})))
TORCH_IS_REQUIRED = os.environ.get("REQUIRE_TORCH") == "1"


def pytest_configure(config: pytest.Config) -> None:
    if TORCH_IS_REQUIRED and not TORCH_IS_INSTALLED:
        raise pytest.UsageError(
            "REQUIRE_TORCH=1 is set and torch is not installed: pip install torch==2.13.0"
        )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file without long tests for a run of long ones alone (`-m "processes or slow"`): that takes seconds."""
    wanted = {*config.option.markexpr.split()} - {"or"}
    if wanted and wanted <= LONG and collection_path.is_file() and not _may_be_long(collection_path):
        return True
    return None


def _may_be_long(file: Path) -> bool:
    return NAMED_IN_LONG.search(file.read_text()) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in MARKS_OF_FIXTURES.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKS_OF_FIXTURES[fixture])
    # Seen by the runs that collect all files.
    if unseen := {
        item.path
        for item in items
        if any(item.get_closest_marker(mark) for mark in LONG) and not _may_be_long(item.path)
    }:
        raise pytest.UsageError(
            f"{unseen} have long tests and name none of {sorted(LONG)}: `-m slow` would not run them"
        )
    items[:] = _in_order(items)
    _trace_some(items)
    if TORCH_IS_INSTALLED:
        return
    skip = pytest.mark.skip(reason="torch is not installed (pip install torch==2.13.0)")
    for item in items:
        if item.get_closest_marker("torch"):
            item.add_marker(skip)


def _in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """By turns a file that starts processes and one that does not, of each kind the longest first.

    Two that run beside each other (`--dist loadfile --no-loadscope-reorder`) then rarely wait for the same thing, and
    none is left at the end that takes minutes.
    """
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    kinds: tuple[list[str], list[str]] = ([], [])
    for name, its in sorted(files.items(), key=lambda file: -_length(file[1])):
        kinds[not any(item.get_closest_marker("processes") for item in its)].append(name)
    return [item for turn in zip_longest(*kinds) for name in turn if name for item in files[name]]


def _length(items: list[pytest.Item]) -> int:
    """About how long a file takes: a slow test as long as twenty others."""
    return sum(20 if item.get_closest_marker("slow") else 1 for item in items)


def _trace_some(items: list[pytest.Item]) -> None:
    """Measuring coverage takes two to four times the time of a test, and all cases of a test pass over nearly the same
    lines: one of each is traced, also of a contract's that many classes inherit, no property test, and none that is
    marked `untraced`.
    """
    traced: set[object] = set()
    for item in items:
        test = getattr(item, "function", None)
        if test is None or getattr(test, "is_hypothesis_test", False) or test in traced:
            continue
        if item.get_closest_marker("untraced"):
            continue
        traced.add(test)
        item.stash[IS_TRACED] = True


def _coverage(config: pytest.Config) -> Any:
    """The part of pytest-cov that traces this process, if it runs."""
    return getattr(config.pluginmanager.get_plugin("_cov"), "cov_controller", None)


class _TracedImports:
    """Trace the modules that coverage measures while they are imported, and nothing else: importing tests and libraries
    under the tracer takes more than twice the time.
    """

    def __init__(self, coverage: Any) -> None:
        self._coverage = coverage
        self._packages = set(coverage.cov.config.source_pkgs)
        self._depth = 0

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in self._packages:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def traced(module: ModuleType) -> None:
                self._depth += 1
                if self._depth == 1:
                    self._coverage.resume()
                try:
                    execute(module)
                finally:
                    self._depth -= 1
                    if self._depth == 0:
                        self._coverage.pause()

            spec.loader.__dict__["exec_module"] = traced
        return spec


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Pause the measurement that has begun with the process: one that starts workers of xdist runs no test.

    In a worker pytest-cov 7.1 begins a second one, which it keeps. Whenever that one pauses, the first would go on in
    its place, and no test would be untraced.
    """
    if coverage := _coverage(session.config):
        coverage.pause()


def pytest_collection_finish() -> None:
    """Let the garbage collector begin, and leave out what is loaded: that stays until the end."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Trace nothing but what is imported of our packages while tests are collected, and the tests that are chosen."""
    coverage = _coverage(session.config)
    if coverage is None:
        return (yield)
    coverage.pause()  # in a worker: the second measurement
    traced_imports = _TracedImports(coverage)
    sys.meta_path.insert(0, traced_imports)
    try:
        return (yield)
    finally:
        sys.meta_path.remove(traced_imports)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    coverage = _coverage(item.config) if item.stash.get(IS_TRACED, False) else None
    if coverage:
        coverage.resume()
    try:
        return (yield)
    finally:
        if coverage:
            coverage.pause()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With REQUIRE_TORCH=1 a run in which a test was skipped for want of torch has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        not TORCH_IS_REQUIRED or reporter is None
    ):  # xdist's workers have no reporter; the one that started them has
        return
    skipped = [
        report.nodeid for report in reporter.stats.get("skipped", []) if "torch" in str(report.longrepr)
    ]
    if skipped:
        reporter.write_line(f"REQUIRE_TORCH=1 is set and these were skipped: {', '.join(skipped)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
