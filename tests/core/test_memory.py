"""A fold holds one model and 64 MiB at most beyond the process that runs it, for 10 updates or 100."""

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
NUM_PARAMETERS = 200_000

RULES = {
    "mean": ({"name": "mean"}, []),
    "median": ({"name": "median"}, []),
    "krum": ({"name": "krum", "f": 1}, []),
    "bulyan": ({"name": "bulyan", "f": 1}, []),
    "geometric_median": ({"name": "geometric_median"}, []),
    "nnm before median": ({"name": "median"}, [{"name": "nnm", "f": 1}]),
}

FOLD = """
import json, os, sys
from pathlib import Path
from fma_core import kernels
from fma_core.aggregation.aggregators import aggregators
from fma_core.engine import ModelFile, Threads, UpdateFile, fold
from fma_core.arrays.spec import Spec
from fma_core.aggregation.strategy import Strategy
folder, rules = Path(sys.argv[1]), json.loads(sys.argv[2])
paths = sorted(folder.glob("update-*"))
spec = Spec.from_json(json.loads((folder / "spec.json").read_text()))
kernels.load()
def run(strategy, count):
    updates = [UpdateFile(paths[i % len(paths)], 1 + i % 3, str(i)) for i in range(count)]
    (folder / f"out-{count}").touch()
    fold(updates, spec=spec, strategy=strategy, out=folder / f"out-{count}", executor=Threads(2))
def peak():
    # Not ru_maxrss: a child begins with the peak of the process that started it.
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1])
def peaks(rule, stages):
    strategy = Strategy.build(aggregators.build_spec(rule), stages=stages)
    run(strategy, 8)  # what is imported and compiled once belongs to the process
    before = peak()
    for count in (10, 100):  # 100 of them are 80 MB
        run(strategy, count)
        yield peak() - before
for name, (rule, stages) in rules.items():
    # A process for each rule, which begins with a peak of its own.
    if os.fork() == 0:
        print(json.dumps([name, *peaks(rule, stages)]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def peaks_kb(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """How much more memory than before each rule held for 10 and for 100 updates."""
    folder = tmp_path_factory.mktemp("updates")
    rng = np.random.default_rng(0)
    for number in range(20):
        weights = {"w": rng.standard_normal(NUM_PARAMETERS, dtype=np.float32)}
        (folder / f"update-{number:02}").write_bytes(encode(weights))
    spec = {"w": {"shape": [NUM_PARAMETERS], "dtype": "float32"}}
    (folder / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-c", FOLD, str(folder), json.dumps(RULES)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: more for name, *more in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_a_fold_holds_one_model_and_64_mib_at_most(rule: str, peaks_kb: dict[str, list[int]]) -> None:
    few, many = peaks_kb[rule]

    assert max(few, many) <= NUM_PARAMETERS * 4 // 1024 + LIMIT_KB
