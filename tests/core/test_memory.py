"""A fold holds one model and 64 MiB at most beyond the process that runs it, for 10 updates or 500."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fma_core.arrays.codecs.safetensors import encode

ROOT = Path(__file__).parents[2]
LIMIT_KB = 64 * 1024
NUM_PARAMETERS = 40_000

RULES = {
    "mean": ({"name": "mean"}, []),
    "median": ({"name": "median"}, []),
    "krum": ({"name": "krum", "f": 1}, []),
    "bulyan": ({"name": "bulyan", "f": 1}, []),
    "geometric_median": ({"name": "geometric_median"}, []),
    "nnm before median": ({"name": "median"}, [{"name": "nnm", "f": 1}]),
}

FOLD = """
import json, sys
from pathlib import Path
from fma_core.aggregation.aggregators import aggregators
from fma_core.arrays.codecs.safetensors import read_file
from fma_core.engine import ModelFile, Threads, UpdateFile, fold
from fma_core.arrays.spec import Spec
from fma_core.aggregation.strategy import Strategy
folder, (rule, stages) = Path(sys.argv[1]), json.loads(sys.argv[2])
paths = sorted(folder.glob("update-*"))
spec = Spec.from_json(json.loads((folder / "spec.json").read_text()))
strategy = Strategy.build(aggregators.build_spec(rule), stages=stages)
def run(count):
    updates = [UpdateFile(paths[i % len(paths)], 1 + i % 3, str(i)) for i in range(count)]
    (folder / f"out-{count}").touch()
    fold(updates, spec=spec, strategy=strategy, out=folder / f"out-{count}", executor=Threads(2))
def peak():
    # Not ru_maxrss: a child begins with the peak of the process that started it.
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1])
run(8)  # what is imported and compiled once, numba for instance, belongs to the process
before = peak()
for count in (10, 500):  # 500 of them are 80 MB
    run(count)
    print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_a_fold_holds_one_model_and_64_mib_at_most(rule: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        weights = {"w": rng.standard_normal(NUM_PARAMETERS, dtype=np.float32)}
        (tmp_path / f"update-{number:02}").write_bytes(encode(weights))
    spec = {"w": {"shape": [NUM_PARAMETERS], "dtype": "float32"}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))

    done = subprocess.run(
        [sys.executable, "-c", FOLD, str(tmp_path), json.dumps(RULES[rule])],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    more_kb = [int(line) for line in done.stdout.splitlines()]
    assert len(more_kb) == 2
    assert max(more_kb) <= NUM_PARAMETERS * 4 // 1024 + LIMIT_KB
