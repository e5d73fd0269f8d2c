"""Rounds without training: eight of our Python clients pull a million float32 and push as many, and so on."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise

from bench import FMA, Bench, NotInstalled, Result, Row
from edge_ways.api import new_model
from edge_ways.databases import SQLITE, new_databases
from edge_ways.flower import FLOWER, flower_rounds
from edge_ways.servers import Server, fma
from goal import Goal

from fma_connect import Client

NUM_CLIENTS = 8
NUM_PARAMETERS = 1_000_000
ARRAYS = (10, 100)
MOST_SECONDS = 0.4


def rounds(bench: Bench) -> Iterator[Result]:
    title = f"a round of {NUM_CLIENTS} clients, {NUM_PARAMETERS} float32, no training, s"
    parameters = NUM_PARAMETERS // (100 if bench.quick else 1)
    count = bench.few(10, 2)
    notes: list[str] = []
    rows, goals = [], []
    medians = {}
    with ExitStack() as stack:
        (database,) = stack.enter_context(new_databases(bench, SQLITE, 1))
        server = stack.enter_context(fma(bench, database))
        for arrays in ARRAYS:
            cpu = server.cpu_seconds()
            seconds = _our_rounds(server, parameters, arrays, count)
            cpu_seconds = (server.cpu_seconds() - cpu) / (count + 1)
            medians[arrays] = statistics.median(seconds)
            numbers = {
                "median s": medians[arrays],
                "best s": min(seconds),
                "worst s": max(seconds),
                "server's cpu s": cpu_seconds,
            }
            rows.append(Row(title, f"{FMA}, {arrays} arrays", numbers))
            goals.append(Goal(f"a round, {arrays} arrays: median s", FMA, medians[arrays], "≤", MOST_SECONDS))
    ratio = medians[ARRAYS[1]] / medians[ARRAYS[0]]
    goals.append(Goal(f"a round: {ARRAYS[1]} arrays by {ARRAYS[0]}", FMA, ratio, "≤", 1.1))
    try:
        for arrays in ARRAYS:
            seconds = flower_rounds(bench, NUM_CLIENTS, parameters, arrays, bench.few(3, 2))
            numbers = {
                "median s": statistics.median(seconds),
                "best s": min(seconds),
                "worst s": max(seconds),
            }
            rows.append(Row(title, f"{FLOWER}, {arrays} arrays", numbers))
    except NotInstalled as why:
        notes.append(str(why))
    yield Result(title, rows, goals, notes)


def _our_rounds(server: Server, parameters: int, arrays: int, count: int) -> list[float]:
    """From one aggregate in the hands of all clients to the next; the first round is not counted."""
    model = new_model(
        server, parameters, arrays=arrays, requirement="require_x_updates", requirement_args=[NUM_CLIENTS]
    )
    arrived_at: dict[int, list[float]] = defaultdict(list)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with Client(f"http://127.0.0.1:{server.port}", model, credential_file=None) as client:
                pulled = client.pull()
                registered.wait()
                for number in range(count + 1):
                    assert pulled is not None, "an aggregate did not come within a minute"
                    client.push(pulled.arrays, num_examples=10)
                    pulled = client.wait_for_next(timeout_s=60)
                    arrived_at[number].append(time.perf_counter())
        except Exception as error:  # noqa: BLE001 - counted, and raised after the threads have ended
            failures.append(error)
            registered.abort()

    registered = threading.Barrier(NUM_CLIENTS)
    threads = [threading.Thread(target=run) for _ in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    ended = [max(arrived_at[number]) for number in range(count + 1)]
    return [later - earlier for earlier, later in pairwise(ended)]
