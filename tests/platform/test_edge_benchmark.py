"""The benchmark of the server's edge starts one, measures it, leaves nothing behind, and says what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "edge.py"), *arguments],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.processes
def test_a_work_has_its_rows_and_its_goals(tmp_path: Path) -> None:
    report = tmp_path / "report.json"

    done = _run(tmp_path, "--quick", "--repeats", "1", "--only", "not_modified", "--json", str(report))

    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    (row,) = found["rows"]
    (goal,) = found["goals"]
    assert row["way"] == "fma"
    assert row["numbers"]["requests/s"] > 0
    assert goal["what"].startswith("304")
    assert goal["reached"] in {True, False}
    assert not list(tmp_path.glob("fma-edge-*")), "its files must be gone"


@pytest.mark.processes
def test_an_unknown_work_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = _run(tmp_path, "--only", "small_post")

    assert done.returncode
    assert "there is no small_post here; there are small_posts, uploads" in done.stderr
