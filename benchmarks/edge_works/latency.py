"""How long after the last update was accepted its aggregate can be downloaded.

Two clients and a thousand parameters: the arithmetic takes less than a millisecond, so all of it is the way there, from
the 201 of the second update to the whole new model, in the hands of a client that waits for it with `?after=&wait=`.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench import FMA, Bench, Result, Row
from edge_ways.api import SAFETENSORS, new_model, register, updates_as_safetensors, weights
from edge_ways.brokers import REDIS, with_brokers
from edge_ways.servers import Server
from goal import Goal
from load import Connections, request

from fma_core import encode

NUM_PARAMETERS = 1000
MOST_MS = {REDIS: 30}
MOST_MS_WITH_DATABASE = 100


def latency(bench: Bench) -> Iterator[Result]:
    title = "from the last update's acceptance to the aggregate, ms"
    notes: list[str] = []
    rows, goals = [], []
    with ExitStack() as stack:
        for broker, server in with_brokers(bench, stack, notes):
            found_ms = _measure(server, bench.few(30, 3))
            median = statistics.median(found_ms)
            p95 = sorted(found_ms)[int(0.95 * len(found_ms))]
            rows.append(
                Row(title, f"{FMA}, {broker}", {"median ms": median, "p95 ms": p95, "best ms": min(found_ms)})
            )
            most = MOST_MS.get(broker, MOST_MS_WITH_DATABASE)
            goals.append(Goal(f"accepted to downloadable, {broker}: median ms", FMA, median, "≤", most))
    yield Result(title, rows, goals, notes)


def _measure(server: Server, rounds: int) -> list[float]:
    """A first round is not counted."""
    model = new_model(server, NUM_PARAMETERS, requirement="require_x_updates", requirement_args=[2])
    first, second = register(server, model, 2)
    body = encode(weights(NUM_PARAMETERS))
    found_ms = []
    newest = 0
    with Connections(server.port, 1) as lines:
        for number in range(rounds + 1):
            lines.send_all(updates_as_safetensors(model, [first], body))
            waiter = _Waiter(server, model, first, newest)
            waiter.start()
            time.sleep(0.05)  # it waits before the round is complete, as clients do
            answers = lines.send_all(updates_as_safetensors(model, [second], body))
            accepted_at = time.perf_counter()
            if set(answers.statuses) != {201}:
                raise RuntimeError(f"the last update: {answers.statuses} {answers.bodies}")
            waiter.join()
            newest = waiter.aggregate
            if number:
                # A worker may be faster than the answer of the update that woke it.
                found_ms.append(max(0.0, waiter.arrived_at - accepted_at) * 1e3)
    return found_ms


class _Waiter(threading.Thread):
    """Asks for a newer model until there is one."""

    def __init__(self, server: Server, model: int, client: str, after: int) -> None:
        super().__init__(daemon=True)
        self._port = server.port
        self._asked = request(
            "GET",
            f"/api/v1/models/{model}/get_latest_model/?after={after}&wait=30",
            headers={"CLIENT-UUID": client, "Accept": SAFETENSORS},
        )
        self.aggregate = 0
        self.arrived_at = 0.0

    def run(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as line:
            while not self.aggregate:
                line.sendall(self._asked)
                answer = b""
                while not _is_whole(answer):
                    answer += line.recv(65536)
                self.arrived_at = time.perf_counter()
                self.aggregate = int(_field(answer, b"fma-aggregate") or 0)


def _is_whole(answer: bytes) -> bool:
    _, end, body = answer.partition(b"\r\n\r\n")
    return bool(end) and len(body) >= int(_field(answer, b"content-length") or 0)


def _field(answer: bytes, name: bytes) -> bytes | None:
    for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return None
