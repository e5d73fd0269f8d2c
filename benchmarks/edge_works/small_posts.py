"""Posts of small updates: fma beside a plain Django view, and beside Capital One's FMA.

Each update of fma is a new client's in one open round that does not close; between two runs the round is cancelled, and
the next one takes the same clients.
"""

from __future__ import annotations

from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle, islice
from typing import Any
from uuid import uuid4

from bench import FMA, Bench, Database, NotInstalled, Result, Row
from edge_ways.api import (
    call,
    new_model,
    next_round,
    register,
    update,
    updates_as_json,
    updates_as_safetensors,
    weights,
    with_another_value,
)
from edge_ways.databases import POSTGRES, SQLITE, new_databases
from edge_ways.servers import Server, fma, original_fma, plain_django
from goal import Goal
from load import Answers, request, send_all

from fma_core import encode

NUM_PARAMETERS = 1000
CONNECTIONS = 16
RUN_SECONDS = 1.5
NEVER_CLOSES: dict[str, Any] = {"requirement": "require_x_updates", "requirement_args": [1_000_000]}
PLAIN, ORIGINAL = "plain Django view", "Capital One's FMA"
FMA_KEYS, FMA_JSON = "fma, as its client sends", "fma, FMA JSON"


@dataclass(frozen=True)
class Way:
    """requests: so many of them, at most `most`. prepare: between two runs, its time counts for nobody."""

    server: Server
    requests: Callable[[int], list[bytes]]
    most: int
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Run:
    answers: Answers
    cpu_seconds: float
    database_cpu_seconds: float

    def count_in(self, seconds: float) -> int:
        return int(self.answers.per_second * seconds)

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / len(self.answers.bodies) * 1e6

    @property
    def database_us(self) -> float:
        return self.database_cpu_seconds / len(self.answers.bodies) * 1e6


def small_posts(bench: Bench) -> Iterator[Result]:
    for name in (SQLITE, POSTGRES):
        title = f"an update of {NUM_PARAMETERS} float32, {CONNECTIONS} connections, {name}"
        notes: list[str] = []
        with ExitStack() as stack:
            try:
                bases = stack.enter_context(new_databases(bench, name, 3))
            except NotInstalled as why:
                yield Result(title, notes=[str(why)])
                continue
            ways = _ways_of_ours(bench, stack, bases)
            try:
                ways[ORIGINAL] = _original(bench, stack, bases[2])
            except NotInstalled as why:
                notes.append(str(why))
            runs = _measure(ways, bench.repeats)
        yield _result(title, name, runs, notes)


def _ways_of_ours(bench: Bench, stack: ExitStack, bases: Sequence[Database]) -> dict[str, Way]:
    plain = stack.enter_context(plain_django(bench, bases[0]))
    ours = stack.enter_context(fma(bench, bases[1], worker=False))
    values = weights(NUM_PARAMETERS)
    body = encode(values)
    stored = request("POST", "/updates/?federated_model=1", body=body)
    model = new_model(ours, NUM_PARAMETERS, **NEVER_CLOSES)
    clients = register(ours, model, bench.few(1000, 40))
    in_json = _json_model(ours, clients=call(ours, "GET", f"models/{model}/")["clients"])

    def with_keys(count: int) -> list[bytes]:
        # Each has a key of its own, and a digest.
        messages = []
        for client in clients[:count]:
            changed = with_another_value(body)
            digest = b64encode(sha256(changed).digest()).decode()
            fields = {"Idempotency-Key": str(uuid4()), "Content-Digest": f"sha-256=:{digest}:"}
            messages.append(update(model, client, changed, **fields))
        return messages

    return {
        PLAIN: Way(plain, lambda count: [stored] * count, bench.few(5000, 40)),
        FMA: Way(
            ours,
            lambda count: updates_as_safetensors(model, clients[:count], body),
            len(clients),
            lambda: next_round(ours, model),
        ),
        FMA_KEYS: Way(ours, with_keys, len(clients), lambda: next_round(ours, model)),
        FMA_JSON: Way(
            ours,
            lambda count: updates_as_json(in_json, clients[:count], values["w0"]),
            len(clients),
            lambda: next_round(ours, in_json),
        ),
    }


def _original(bench: Bench, stack: ExitStack, database: Database) -> Way:
    server = stack.enter_context(original_fma(bench, database))
    model = _json_model(server, developer=1)
    clients = register(server, model, bench.few(50, 20), connections=1)
    values = weights(NUM_PARAMETERS)["w0"]
    # A client may send as often as it likes, and every update is a new row.
    one_each = updates_as_json(model, clients, values)
    return Way(server, lambda count: list(islice(cycle(one_each), count)), bench.few(1000, 20))


def _json_model(server: Server, **fields: object) -> int:
    """A body that both FMAs understand."""
    about = {
        "name": "benchmark",
        "aggregator": "avg_values_if_data",
        "allow_aggregation": True,
        "initial_model": [0.0] * NUM_PARAMETERS,
        **NEVER_CLOSES,
        **fields,
    }
    model: int = call(server, "POST", "models/", json=about)["id"]
    return model


def _measure(ways: dict[str, Way], repeats: int) -> dict[str, list[Run]]:
    """In turn, run after run; a first short one of each warms it up and says how many requests fill the time."""
    counts = {
        name: run_way(way, max(CONNECTIONS, way.most // 5)).count_in(RUN_SECONDS)
        for name, way in ways.items()
    }
    runs: dict[str, list[Run]] = defaultdict(list)
    for _ in range(repeats):
        for name, way in ways.items():
            runs[name].append(run_way(way, min(way.most, max(2 * CONNECTIONS, counts[name]))))
    return runs


def run_way(way: Way, count: int) -> Run:
    way.prepare()
    requests, server = way.requests(count), way.server
    cpu, database_cpu = server.cpu_seconds(), server.database_cpu_seconds()
    answers = send_all(server.port, requests, connections=CONNECTIONS)
    return Run(answers, server.cpu_seconds() - cpu, server.database_cpu_seconds() - database_cpu)


def _result(title: str, database: str, runs: dict[str, list[Run]], notes: list[str]) -> Result:
    cpu = {name: min(run.cpu_us for run in found) for name, found in runs.items()}
    both = {name: min(run.cpu_us + run.database_us for run in found) for name, found in runs.items()}
    rate = {name: max(run.answers.per_second for run in found) for name, found in runs.items()}
    rows = [
        Row(
            title,
            name,
            {
                "requests/s": rate[name],
                "cpu µs": cpu[name],
                "database µs": None if database == SQLITE else min(run.database_us for run in found),
                "p50 ms": min(run.answers.percentile_ms(0.5) for run in found),
                "p99 ms": min(run.answers.percentile_ms(0.99) for run in found),
                "× plain cpu": cpu[name] / cpu[PLAIN],
                "× with database": None if database == SQLITE else both[name] / both[PLAIN],
                "× FMA's requests/s": rate[name] / rate[ORIGINAL] if ORIGINAL in rate else None,
                "refused": sum(_refused(run.answers) for run in found),
            },
        )
        for name, found in runs.items()
    ]
    goals = [Goal(f"small post, {database}: cpu by plain Django's", FMA, cpu[FMA] / cpu[PLAIN], "≤", 2)]
    if ORIGINAL in rate:
        goals += [
            Goal(f"small post, {database}: requests/s by FMA's", FMA, rate[FMA] / rate[ORIGINAL], "≥", 6),
            Goal(
                f"JSON post, {database}: requests/s by FMA's",
                FMA_JSON,
                rate[FMA_JSON] / rate[ORIGINAL],
                "≥",
                3,
            ),
        ]
    if refused := {name: sum(_refused(run.answers) for run in found) for name, found in runs.items()}:
        notes += [f"{name} refused {count} requests" for name, count in refused.items() if count]
    return Result(title, rows, goals, notes)


def _refused(answers: Answers) -> int:
    return sum(count for status, count in answers.statuses.items() if status >= 300)
