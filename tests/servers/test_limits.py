"""A test that hangs fails, says where every thread stood, and does not keep the run from ending."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.fma import REPOSITORY

pytestmark = pytest.mark.processes

HANGS = """
import threading, time
from tests.servers import plugin

plugin.EXIT_LIMIT_S = 1

def linger():
    time.sleep(600)

def test_hangs():
    thread = threading.Thread(target=linger)
    thread.start()
    thread.join()
"""


def test_a_hanging_test_fails_with_all_stacks_and_the_run_ends(tmp_path: Path) -> None:
    hanging = tmp_path / "test_hanging.py"
    hanging.write_text(HANGS)
    options = ["-n", "0", "--timeout=2", "-p", "no:cacheprovider", "--rootdir", str(REPOSITORY)]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(REPOSITORY / "pyproject.toml"), *options, str(hanging)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 1
    assert "Timeout (>2.0s)" in done.stdout
    assert "thread.join()" in done.stdout
    assert "in linger" in done.stdout
