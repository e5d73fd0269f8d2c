"""The CPU time of a server that has nothing to do: all processes of `fma serve`, side by side over the same seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench import FMA, Bench, Result, Row
from edge_ways.brokers import with_brokers
from edge_ways.servers import Server
from goal import Goal

SECONDS = 30
SETTLING_SECONDS = 5
MOST_PERCENT = 1


def idle(bench: Bench) -> Iterator[Result]:
    seconds = bench.few(SECONDS, 2)
    title = f"idle for {seconds} s, per cent of a core"
    notes: list[str] = []
    with ExitStack() as stack:
        servers = dict(with_brokers(bench, stack, notes))
        time.sleep(bench.few(SETTLING_SECONDS, 1))
        before = {name: _cpu(server) for name, server in servers.items()}
        time.sleep(seconds)
        taken = {name: _cpu(server) for name, server in servers.items()}
    percent = {
        name: tuple((now - then) / seconds * 100 for now, then in zip(taken[name], before[name], strict=True))
        for name in servers
    }
    yield Result(
        title,
        [
            Row(title, f"{FMA} serve, {name}", {"cpu %": own, "database %": database})
            for name, (own, database) in percent.items()
        ],
        [
            Goal(f"idle, {name}: per cent of a core", FMA, own, "≤", MOST_PERCENT)
            for name, (own, _) in percent.items()
        ],
        notes,
    )


def _cpu(server: Server) -> tuple[float, float]:
    return server.cpu_seconds(), server.database_cpu_seconds()
