"""Rounds of Flower's server without training, in the interpreter that has it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from bench import Bench, NotInstalled

from tests.servers.free_port import free_port

FLOWER = "Flower"
LIMIT_S = 240


def flower_rounds(bench: Bench, clients: int, parameters: int, arrays: int, count: int) -> list[float]:
    """Seconds of each round but the first. Raises NotInstalled."""
    if bench.flower is None:
        raise NotInstalled("Flower is left out: --flower names no interpreter that has it")
    script = Path(__file__).with_name("flower_rounds.py")
    numbers = (free_port(), clients, parameters, arrays, count)
    done = subprocess.run(
        [str(bench.flower), str(script), *map(str, numbers)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"Flower: {done.stderr[-3000:]}")
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds
