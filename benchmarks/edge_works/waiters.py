"""Small posts while two hundred clients wait for a newer model, beside the same posts while nobody waits."""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import FMA, Bench, Result, Row
from edge_ways.api import new_model, next_round, register, updates_as_safetensors, weights
from edge_ways.databases import SQLITE, new_databases
from edge_ways.servers import Server, fma
from goal import Goal
from load import request

from edge_works.small_posts import CONNECTIONS, NEVER_CLOSES, NUM_PARAMETERS, Run, Way, run_way
from fma_core import encode

NUM_WAITERS = 200
MEBIBYTE = 2**20
MOST_TIMES = 1.25


def waiters(bench: Bench) -> Iterator[Result]:
    """The waiting clients are those of another model, so that nobody wakes them."""
    title = f"an update of {NUM_PARAMETERS} float32 while others wait, {CONNECTIONS} connections, {SQLITE}"
    runs: dict[int, list[Run]] = defaultdict(list)
    grown_mib = []
    answered = 0
    with ExitStack() as stack:
        (database,) = stack.enter_context(new_databases(bench, SQLITE, 1))
        server = stack.enter_context(fma(bench, database, worker=False))
        model = new_model(server, NUM_PARAMETERS, **NEVER_CLOSES)
        clients = register(server, model, bench.few(500, 32))
        waited_for = new_model(server, NUM_PARAMETERS, **NEVER_CLOSES)
        (waiting,) = register(server, waited_for, 1)
        body = encode(weights(NUM_PARAMETERS))
        way = Way(
            server,
            lambda count: updates_as_safetensors(model, clients[:count], body),
            len(clients),
            lambda: next_round(server, model),
        )
        for number in range(bench.repeats + 1):
            for count in (0, NUM_WAITERS):
                before = server.memory_bytes()
                with _waiting(server, waited_for, waiting, count) as lines:
                    time.sleep(0.5)  # until all of them wait
                    if count and number:
                        grown_mib.append((server.memory_bytes() - before) / MEBIBYTE)
                    run = run_way(way, way.most)
                    answered += sum(_has_answer(line) for line in lines)
                if number:  # the first warms up
                    runs[count].append(run)
    yield _result(title, runs, max(grown_mib), answered)


@contextmanager
def _waiting(server: Server, model: int, client: str, count: int) -> Iterator[list[socket.socket]]:
    asked = request(
        "GET",
        f"/api/v1/models/{model}/get_latest_aggregate/?after=0&wait=60",
        headers={"CLIENT-UUID": client},
    )
    with ExitStack() as stack:
        lines = []
        for _ in range(count):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            line.sendall(asked)
            lines.append(line)
        yield lines


def _has_answer(line: socket.socket) -> bool:
    line.setblocking(False)
    try:
        return bool(line.recv(1))
    except BlockingIOError:
        return False


def _result(title: str, runs: dict[int, list[Run]], grown_mib: float, answered: int) -> Result:
    rows = [
        Row(
            title,
            f"{count} waiters" if count else "nobody waits",
            {
                "requests/s": max(run.answers.per_second for run in found),
                "cpu µs": min(run.cpu_us for run in found),
                "p50 ms": min(run.answers.percentile_ms(0.5) for run in found),
                "p95 ms": min(run.answers.percentile_ms(0.95) for run in found),
                "MiB of those who wait": grown_mib if count else None,
            },
        )
        for count, found in runs.items()
    ]
    alone, beside = ({name: value or 0.0 for name, value in row.numbers.items()} for row in rows)
    goals = [
        Goal(
            f"{NUM_WAITERS} waiters: {name} by that without", FMA, beside[name] / alone[name], "≤", MOST_TIMES
        )
        for name in ("p95 ms", "cpu µs")
    ]
    notes = [f"{answered} of the waiters were answered before their time"] if answered else []
    return Result(title, rows, goals, notes)
