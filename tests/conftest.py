"""Rules of the whole test run; the environment is set in tests/environment.py."""

import importlib.util
import os
from collections import Counter
from itertools import zip_longest

import pytest

TORCH_IS_INSTALLED = importlib.util.find_spec("torch") is not None
TRACED_CASES = 4
# A test that uses one of these starts a server, and belongs to the tier of those that do.
MARKS_OF_FIXTURES = {
    "fma_install": "processes",
    "fma_server": "processes",
    "postgres_server": "postgres",
    "s3_server": "s3",
}
TORCH_IS_REQUIRED = os.environ.get("REQUIRE_TORCH") == "1"


def pytest_configure(config: pytest.Config) -> None:
    if TORCH_IS_REQUIRED and not TORCH_IS_INSTALLED:
        raise pytest.UsageError(
            "REQUIRE_TORCH=1 is set and torch is not installed: pip install torch==2.13.0"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in MARKS_OF_FIXTURES.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKS_OF_FIXTURES[fixture])
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
    for name, its in sorted(files.items(), key=lambda file: -len(file[1])):
        kinds[not any(item.get_closest_marker("processes") for item in its)].append(name)
    return [item for turn in zip_longest(*kinds) for name in turn if name for item in files[name]]


def _trace_some(items: list[pytest.Item]) -> None:
    """Measuring coverage doubles the time of numeric tests, and all cases of a test pass over nearly the same lines: a
    few of each are traced, and no property test.
    """
    cases: Counter[str] = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        cases[test] += 1
        if cases[test] > TRACED_CASES or getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("no_cover")


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
