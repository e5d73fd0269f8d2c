"""The environment of a test run: loaded by `-p` (pyproject.toml) before Django reads its settings.

Whatever FMA_* variables a developer has set are put aside, so that a run depends on the repository alone. A run of
nothing but tests/core loads neither Django nor the servers: its files start in a second.
"""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).parent / "core"

for _name in [name for name in os.environ if name.startswith("FMA_")]:
    del os.environ[_name]

# A run starts some hundreds of processes. Each would compile our modules anew, which takes it a second.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Until all tests are collected (tests/conftest.py): looking through the million objects that are loaded meanwhile takes
# a fifth of the time, and finds little.
gc.disable()

_data_dir = tempfile.mkdtemp(prefix="fma-tests-")
atexit.register(shutil.rmtree, _data_dir, ignore_errors=True)

os.environ["FMA_DATA_DIR"] = _data_dir
os.environ["FMA_SECRET_KEY"] = "tests-only-" + "0123456789" * 5


@pytest.hookimpl(wrapper=True)  # before pytest-django, which looks for the settings here
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Load Django, unless all that is asked for lies in tests/core."""
    started_in = early_config.invocation_params.dir
    paths = early_config.known_args_namespace.file_or_dir or ["."]
    if not all((started_in / path.partition("::")[0]).resolve().is_relative_to(CORE) for path in paths):
        os.environ["DJANGO_SETTINGS_MODULE"] = "fma_api.settings"
        early_config.pluginmanager.import_plugin("tests.with_django")
        early_config.pluginmanager.import_plugin("tests.servers.plugin")
    return (yield)
