"""The server at its edge beside the least that its work could cost, and beside others: tables, and JSON.

    python benchmarks/edge.py --markdown edge.md --original ORIGINAL/bin/python --flower FLOWER/bin/python
    python benchmarks/edge.py --only small_posts,idle
    python benchmarks/edge.py --quick

Every server is processes of its own; those of one table stand side by side and are measured in turn, so that what else
the machine does falls on all of them. Ratios are those of the best runs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(REPOSITORY))  # tests.servers knows how to start what is compared

from bench import Bench, Result  # noqa: E402
from edge_works.hostile import hostile  # noqa: E402
from edge_works.idle import idle  # noqa: E402
from edge_works.large_bodies import downloads, not_modified, uploads  # noqa: E402
from edge_works.latency import latency  # noqa: E402
from edge_works.lists import lists  # noqa: E402
from edge_works.many_clients import many_clients  # noqa: E402
from edge_works.rounds import rounds  # noqa: E402
from edge_works.small_posts import small_posts  # noqa: E402
from edge_works.waiters import waiters  # noqa: E402
from machine import machine  # noqa: E402
from page import markdown  # noqa: E402

PACKAGES = ("federated-model-aggregation", "django", "granian")
WORKS: dict[str, Callable[[Bench], Iterator[Result]]] = {
    "small_posts": small_posts,
    "uploads": uploads,
    "downloads": downloads,
    "not_modified": not_modified,
    "latency": latency,
    "rounds": rounds,
    "many_clients": many_clients,
    "lists": lists,
    "waiters": waiters,
    "hostile": hostile,
    "idle": idle,
}


def main() -> None:
    options = parse_options()
    # Whoever ends it leaves neither its files nor its processes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    notes = ["a quick run: its numbers say nothing"] if options.quick else []
    results: list[Result] = []
    facts = machine(PACKAGES)
    print(f"{facts['cores']} cores, load {facts['load']}", *notes, sep="\n")
    with tempfile.TemporaryDirectory(prefix="fma-edge-") as folder:
        bench = Bench(
            Path(folder),
            quick=options.quick,
            repeats=options.repeats,
            original=options.original,
            flower=options.flower,
        )
        for name in chosen(options.only):
            started, load = time.monotonic(), os.getloadavg()[0]
            for result in WORKS[name](bench):
                results.append(result)
                print(f"\n{result}", flush=True)
            print(f"({name}: {time.monotonic() - started:.0f} s, load before {load:.1f})", flush=True)
    goals = [goal for result in results for goal in result.goals]
    print("\ngoals", *goals, sep="\n")
    if options.markdown is not None:
        options.markdown.write_text(
            markdown("benchmarks/edge.py", facts, notes, list(map(str, results)), goals)
        )
    if options.json is not None:
        report = {
            "machine": facts,
            "notes": [*notes, *(note for result in results for note in result.notes)],
            "rows": [row.to_json() for result in results for row in result.rows],
            "goals": [{**vars(goal), "reached": goal.is_reached} for goal in goals],
        }
        options.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def chosen(only: str | None) -> list[str]:
    names = only.split(",") if only else list(WORKS)
    if unknown := set(names) - set(WORKS):
        raise SystemExit(
            f"--only: there is no {', '.join(sorted(unknown))} here; there are {', '.join(WORKS)}"
        )
    return names


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure fma's server beside others.")
    parser.add_argument("--only", metavar="WORKS", help=f"some of {','.join(WORKS)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="as little as there can be, to see that it runs")
    parser.add_argument("--original", type=Path, metavar="PYTHON", help="one that has Capital One's FMA")
    parser.add_argument("--flower", type=Path, metavar="PYTHON", help="one that has Flower")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the tables as a page")
    return parser.parse_args()


if __name__ == "__main__":
    main()
