"""Four hospitals say together what all of their cases would have said."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.page import REPOSITORY

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def test_merged_metrics_are_those_of_the_pooled_cases(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / "evaluation_across_organisations.py")],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )

    assert done.returncode == 0, done.stdout
    assert "of single hospitals []" in done.stdout
    assert "three of them alone: isolates_contributors" in done.stdout
    table = re.findall(r"^(\w+) +([\d.]+) +([\d.]+) +(\S+)$", done.stdout, re.MULTILINE)
    assert len(table) == 7, done.stdout
    assert all(merged == pooled for _, merged, pooled, _ in table), done.stdout
    (furthest,) = re.findall(r"merged and pooled: (\S+)$", done.stdout, re.MULTILINE)
    assert float(furthest) < 1e-9
