"""Old names of modules: they give the very modules of the new ones, warn, and go in time."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fma_core
from fma_core import aliases

ALIASES = aliases.installed()
PYPROJECT = Path(fma_core.__file__).parent.parent / "pyproject.toml"


@pytest.fixture(autouse=True)
def forgotten():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if any(alias.covers(name) for alias in ALIASES):
            del sys.modules[name]


@pytest.mark.parametrize("alias", ALIASES, ids=lambda alias: alias.old)
def test_an_old_name_is_the_new_module_and_says_so(alias):
    with pytest.warns(DeprecationWarning, match=rf"{alias.old} has been {alias.new} since fma {alias.since}"):
        found = importlib.import_module(alias.old)

    assert found is importlib.import_module(alias.new)


def test_a_module_below_an_old_name_is_loaded_once():
    with pytest.warns(DeprecationWarning, match="the old name goes with 0.4"):
        median = importlib.import_module("fma_core.aggregators.median")

    assert median is importlib.import_module("fma_core.aggregation.aggregators.median")


def test_the_warning_names_the_line_that_imports(tmp_path):
    plugin = tmp_path / "plugin.py"
    plugin.write_text("import os\nfrom fma_core.aggregators import Aggregator\n")

    run = subprocess.run(
        [sys.executable, "-W", "always", plugin], capture_output=True, text=True, check=True, timeout=60
    )

    assert f"{plugin}:2: DeprecationWarning: fma_core.aggregators has been" in run.stderr


def test_what_never_was_there_is_no_module():
    with (
        pytest.warns(DeprecationWarning, match=r"fma_core\.aggregators has been"),
        pytest.raises(ModuleNotFoundError, match=r"aggregators\.mode"),
    ):
        importlib.import_module("fma_core.aggregators.mode")


@pytest.mark.parametrize("alias", ALIASES, ids=lambda alias: alias.old)
def test_no_alias_outlives_its_version(alias):
    version = tomllib.loads(PYPROJECT.read_text())["project"]["version"]

    assert _number(version) < _number(alias.until), f"remove the alias {alias.old}"


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
