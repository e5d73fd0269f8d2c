"""A Python of the reader's own: source text goes in piece by piece, what it prints comes out.

A process beside the tests, because a page may register parts, leave connections open or change folders.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

DONE = "--- end of block ---"
DRIVER = f"""
import json, sys
namespace = {{"__name__": "__main__"}}
for line in sys.stdin:
    place, source = json.loads(line)
    exec(compile(source, place, "exec"), namespace)
    print({DONE!r}, flush=True)
"""


class PythonSession:
    def __init__(self, *, folder: Path, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, source: str, *, place: str) -> str:
        """Run the source and return its output. Raises AssertionError with its traceback where the source raises."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([place, source]) + "\n")
        self._process.stdin.flush()
        printed: list[str] = []
        for line in self._process.stdout:
            if line.rstrip("\n") == DONE:
                return "".join(printed)
            printed.append(line)
        raise AssertionError(f"{place} failed:\n{''.join(printed)}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)
