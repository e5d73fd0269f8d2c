"""Every rule beside the least that it could cost, numpy on everything in memory, and Flower: a table, and JSON.

    python benchmarks/aggregation.py --json results.json
    python benchmarks/aggregation.py --only mean,median --sizes 100x1M --repeats 3
    python benchmarks/aggregation.py --quick

Each way has a process of its own, so that its peak of memory can be told; they run in turn, round after round, so that
what else the machine does falls on all of them. Ratios are those of the best times.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from cases import SIZES, Case, Size, write_updates
from goals import goals_of
from machine import machine, num_cores
from measured_process import MeasuredProcess, Run
from page import markdown
from rows import Row, rows_of, table
from safetensors.numpy import load_file
from ways import FMA, Way, ways_for

PACKAGES = ("federated-model-aggregation", "numpy", "numba", "flwr")
WARM_UP_COLUMNS = 512
QUICK_FACTOR = 1000
# A way that has taken so long is not repeated: Flower's Krum of 100 updates makes 10,000 differences of them.
ENOUGH_SECONDS = 20.0


def main() -> None:
    options = parse_options()
    # Whoever ends it leaves neither its files nor its processes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    cores = num_cores()
    has_fast, has_flower = _imports("numba"), _imports("flwr.server.strategy")
    notes = [
        note
        for is_there, note in (
            (has_fast, "numba is not installed (extra `fast`): only numpy's kernels"),
            (has_flower, "flwr is not installed (extra `bench`): nothing is compared with Flower"),
            (not options.quick, "a quick run: its numbers say nothing"),
        )
        if not is_there
    ]
    rows: list[Row] = []
    tables: list[str] = []
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}")
    print(*notes, sep="\n")
    with tempfile.TemporaryDirectory(prefix="fma-benchmark-") as folder:
        for rule, sizes in chosen(options).items():
            cases = [Case(rule, size, Path(folder, str(size)), has_parent=options.parent) for size in sizes]
            ways = {
                case: ways_for(
                    rule, case.size.num_updates, cores=cores, has_fast=has_fast, has_flower=has_flower
                )
                for case in cases
            }
            for case, runs in measure(ways, repeats=options.repeats).items():
                found = rows_of(rule, case.size, runs)
                rows += found
                tables.append(f"{rule}, {case.size} float32\n{table(found)}")
                print(f"\n{tables[-1]}", flush=True)
    goals = goals_of(rows)
    print("\ngoals", *goals, sep="\n")
    if options.markdown is not None:
        options.markdown.write_text(
            markdown("benchmarks/aggregation.py", machine(PACKAGES), notes, tables, goals)
        )
    if options.json is not None:
        report = {
            "machine": machine(PACKAGES),
            "notes": notes,
            "rows": [row.to_json() for row in rows],
            "goals": [{**vars(goal), "reached": goal.is_reached} for goal in goals],
        }
        options.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def chosen(options: argparse.Namespace) -> dict[str, list[Size]]:
    names = options.only.split(",") if options.only else list(SIZES)
    if unknown := set(names) - set(SIZES):
        raise SystemExit(
            f"--only: there is no {', '.join(sorted(unknown))} here; there are {', '.join(SIZES)}"
        )
    sizes = {name: options.sizes.split(",") if options.sizes else SIZES[name] for name in names}
    factor = QUICK_FACTOR if options.quick else 1
    return {
        name: [Size(size.num_updates, size.num_columns // factor) for size in map(Size.parse, texts)]
        for name, texts in sizes.items()
    }


def measure(ways: dict[Case, list[Way]], *, repeats: int) -> dict[Case, dict[Way, list[Run]]]:
    """All ways of all cases of a rule, in turn."""
    runs: dict[Case, dict[Way, list[Run]]] = {case: defaultdict(list) for case in ways}
    with ExitStack() as stack:
        processes = []
        for case, case_ways in ways.items():
            warm_up = Case(
                case.rule,
                Size(case.size.num_updates, WARM_UP_COLUMNS),
                case.folder.with_name(f"{case.size}-warm-up"),
                case.has_parent,
            )
            for needed in (case, warm_up):
                if not needed.folder.exists():
                    write_updates(needed)
            for way in case_ways:
                process = MeasuredProcess(way, case, warm_up=warm_up)
                stack.callback(process.close)
                processes.append((case, process))
        for _, process in processes:
            process.wait()
        for _ in range(repeats):
            for case, process in processes:
                found = runs[case][process.way]
                if sum(run.seconds for run in found) < ENOUGH_SECONDS:
                    found.append(process.run())
        for case in ways:
            check(case, [process for its_case, process in processes if its_case == case])
    return runs


def check(case: Case, processes: Sequence[MeasuredProcess]) -> None:
    """Require that all ways gave the same model: fma the same bytes, the others the same numbers."""
    expected: dict[str, Any] = {}
    for name, values in _results(case, processes):
        if not expected:
            expected[name] = values
        (first,) = expected.values()
        if name.startswith(FMA):
            np.testing.assert_array_equal(values, first, err_msg=name)
        else:
            np.testing.assert_allclose(values, first, rtol=1e-4, atol=1e-5, err_msg=name)


def _results(case: Case, processes: Sequence[MeasuredProcess]) -> Iterator[tuple[str, np.ndarray]]:
    path = case.folder / "compared"
    for process in sorted(processes, key=lambda process: process.way.kind != FMA):
        if process.save(path):
            (values,) = load_file(path).values()
            yield str(process.way), values


def _imports(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:  # not installed, or (numba) older than this numpy
        return False
    return True


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare fma's rules with the limit, numpy and Flower.")
    parser.add_argument("--only", metavar="RULES", help=f"some of {','.join(SIZES)}")
    parser.add_argument("--sizes", help="updates x parameters, as in 100x1M,20x1M, for every rule")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--quick", action="store_true", help="a thousandth of the parameters, to see that it runs"
    )
    parser.add_argument("--parent", action="store_true", help="the round has a model to start from")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the tables as a page")
    return parser.parse_args()


if __name__ == "__main__":
    main()
