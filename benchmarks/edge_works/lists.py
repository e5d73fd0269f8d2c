"""Lists and details while the table holds a hundred updates, and while it holds a hundred thousand.

The others are copies of a hundred real ones, in rounds of their own, which `edge_ways/in_the_record.py` makes in the
database. Queries are counted there too, p95 is that of requests to the server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import FMA, Bench, NotInstalled, Result, Row
from edge_ways.api import call, new_model, register, updates_as_safetensors, weights
from edge_ways.databases import POSTGRES, SQLITE, new_databases
from edge_ways.servers import Server, fma
from goal import Goal
from load import Answers, Connections, request

from edge_works.many_clients import newest_aggregate
from fma_core import encode

SCRIPT = Path(__file__).resolve().parents[1] / "edge_ways" / "in_the_record.py"
REPOSITORY = SCRIPT.parents[2]
FEW, MANY = 100, 100_000
MOST_TIMES = 2
WARM_UP = 5
LISTS = (
    "models/",
    "models/{model}/rounds/?page_size=2",  # as many as there are where there are few; each lists its updates
    "model_updates/",
    "model_updates/?federated_model={model}",
    "model_updates/?status=2",
    "model_aggregates/?federated_model={model}",
    "clients/?federated_model={model}",
)
DETAILS = (
    "models/{model}/",
    "models/{model}/rounds/1/",
    "models/{model}/get_latest_aggregate/",
    "model_updates/{update}/",
)


@dataclass(frozen=True, eq=False)
class Side:
    """A server, and where its objects are."""

    server: Server
    paths: dict[str, str]


def lists(bench: Bench) -> Iterator[Result]:
    for name in (SQLITE, POSTGRES):
        title = f"lists and details with {FEW} and with {MANY} updates, {name}"
        try:
            with ExitStack() as stack:
                databases = stack.enter_context(new_databases(bench, name, 2))
                few, many = (
                    _side(bench, stack.enter_context(fma(bench, database))) for database in databases
                )
                _run(many.server, "fill", _model_of(many), str(bench.few(MANY // FEW - 1, 3)))
                yield _compare(bench, title, name, few, many)
        except NotInstalled as why:
            yield Result(title, notes=[str(why)])


def _side(bench: Bench, server: Server) -> Side:
    """A server with a hundred updates in one published round."""
    count = bench.few(FEW, 5)
    model = new_model(server, 10, requirement="require_x_updates", requirement_args=[count])
    clients = register(server, model, count)
    with Connections(server.port, 8) as lines:
        lines.send_all(updates_as_safetensors(model, clients, encode(weights(10))))
        newest_aggregate(lines, model, clients[0], 0)
    update = call(server, "GET", "model_updates/")[0]["id"]
    return Side(
        server, {path: f"/api/v1/{path.format(model=model, update=update)}" for path in (*LISTS, *DETAILS)}
    )


def _model_of(side: Side) -> str:
    return side.paths["models/{model}/"].split("/")[-2]


def _compare(bench: Bench, title: str, name: str, few: Side, many: Side) -> Result:
    queries = {side: _queries(side) for side in (few, many)}
    p95: dict[Side, dict[str, list[float]]] = {few: defaultdict(list), many: defaultdict(list)}
    for _ in range(bench.repeats):
        for path in few.paths:
            for side in (few, many):
                p95[side][path].append(_times(bench, side, path).percentile_ms(0.95))
    rows, goals = [], []
    for path in few.paths:
        least = {side: min(p95[side][path]) for side in (few, many)}
        times = least[many] / least[few]
        numbers = {
            f"queries, {FEW}": queries[few][path],
            f"queries, {MANY}": queries[many][path],
            f"p95 ms, {FEW}": least[few],
            f"p95 ms, {MANY}": least[many],
            "×": times,
        }
        rows.append(Row(title, path, numbers))
        goals.append(Goal(f"{path}, {name}: p95 by that of {FEW}", FMA, times, "≤", MOST_TIMES))
    more = sum(queries[many][path] != queries[few][path] for path in few.paths)
    goals.append(Goal(f"lists, {name}: those with another number of queries", FMA, more, "≤", 0))
    return Result(title, rows, goals)


def _times(bench: Bench, side: Side, path: str) -> Answers:
    asked = request("GET", side.paths[path], headers=side.server.headers)
    with Connections(side.server.port, 1) as lines:
        lines.send_all([asked] * WARM_UP)
        answers = lines.send_all([asked] * bench.few(60, 5))
    if set(answers.statuses) != {200}:
        raise RuntimeError(f"GET {path}: {answers.statuses}")
    return answers


def _queries(side: Side) -> dict[str, int]:
    said = _run(side.server, "queries", side.server.token, *side.paths.values())
    counts = json.loads(said.splitlines()[-1])
    return {path: counts[target] for path, target in side.paths.items()}


def _run(server: Server, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**server.env, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]}: {done.stderr[-3000:]}")
    return done.stdout
