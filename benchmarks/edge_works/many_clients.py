"""A thousand clients, two hundred connections at once, twenty rounds of a hundred updates of 100k parameters.

In each round a hundred of the clients send, ten of them once more as after an answer that got lost, while others wait
for the result. Then every update must have been counted once, in the rounds and in the list of updates.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from uuid import uuid4

from bench import FMA, Bench, NotInstalled, Result, Row
from edge_ways.api import call, new_model, register, update, weights, with_another_value
from edge_ways.databases import POSTGRES, SQLITE, new_databases
from edge_ways.servers import Server, fma
from goal import Goal
from load import Connections, request

from fma_core import encode

NUM_PARAMETERS = 100_000
NUM_CLIENTS, NUM_CONNECTIONS, NUM_ROUNDS = 1000, 200, 20
UPDATES_PER_ROUND, SENT_TWICE = 100, 10
MOST_TIMES = 1.25
PAGE = 199  # no divisor of the number of updates: there is no empty page


def many_clients(bench: Bench) -> Iterator[Result]:
    for name in (SQLITE, POSTGRES):
        title = (
            f"{NUM_CLIENTS} clients, {NUM_CONNECTIONS} connections, {NUM_ROUNDS} rounds of {UPDATES_PER_ROUND} updates "
            f"of {NUM_PARAMETERS} float32, {name}"
        )
        try:
            with ExitStack() as stack:
                (database,) = stack.enter_context(new_databases(bench, name, 1))
                server = stack.enter_context(fma(bench, database))
                yield _measure(bench, server, title, name)
        except NotInstalled as why:
            yield Result(title, notes=[str(why)])


def _measure(bench: Bench, server: Server, title: str, name: str) -> Result:
    per_round, num_rounds = bench.few(UPDATES_PER_ROUND, 10), bench.few(NUM_ROUNDS, 4)
    model = new_model(
        server,
        bench.few(NUM_PARAMETERS, 1000),
        requirement="require_x_updates",
        requirement_args=[per_round],
    )
    clients = register(server, model, bench.few(NUM_CLIENTS, 40))
    body = encode(weights(bench.few(NUM_PARAMETERS, 1000)))
    statuses: Counter[int] = Counter()
    seconds = []
    newest = hung_up = 0
    with Connections(server.port, bench.few(NUM_CONNECTIONS, 20)) as lines:
        cpu = server.cpu_seconds()
        for number in range(num_rounds):
            senders = [clients[(number * per_round + index) % len(clients)] for index in range(per_round)]
            posts = _posts(model, senders, body)
            waits = [_wait(model, client, newest) for client in clients[: len(posts) // 2]]
            started = time.perf_counter()
            answers = lines.send_all([*waits, *posts])
            newest = newest_aggregate(lines, model, clients[0], newest)
            seconds.append(time.perf_counter() - started)
            statuses += answers.statuses
            hung_up += answers.hung_up
        cpu_seconds = server.cpu_seconds() - cpu
    expected = per_round * num_rounds
    counted = _counted(server, model, num_rounds, per_round)
    rate = [per_round / taken for taken in seconds]
    third = max(1, num_rounds // 3)
    # The first round opens connections and imports what it needs.
    slower = statistics.median(seconds[-third:]) / statistics.median(seconds[1 : third + 1])
    broken = sum(count for status, count in statuses.items() if status >= 500)
    row = Row(
        title,
        FMA,
        {
            "updates/s": statistics.median(rate),
            "first round s": seconds[1],
            "last round s": seconds[-1],
            "last third by first": slower,
            "cpu ms/update": cpu_seconds / expected * 1e3,
            "counted": counted,
            "sent": expected,
            "5xx": broken,
            "sent again": hung_up,
        },
    )
    goals = [
        Goal(f"many clients, {name}: updates not counted once", FMA, abs(expected - counted), "≤", 0),
        Goal(f"many clients, {name}: answers of 5xx", FMA, broken, "≤", 0),
        Goal(f"many clients, {name}: seconds, last rounds by first", FMA, slower, "≤", MOST_TIMES),
    ]
    refused = {status: count for status, count in statuses.items() if status not in {200, 201, 204}}
    return Result(title, [row], goals, [f"refused: {refused}"] if refused else [])


def _posts(model: int, clients: Sequence[str], body: bytes) -> list[bytes]:
    posts = []
    for index, client in enumerate(clients):
        post = update(model, client, with_another_value(body), **{"Idempotency-Key": str(uuid4())})
        posts += [post] * (2 if index < SENT_TWICE * len(clients) // UPDATES_PER_ROUND else 1)
    return posts


def _wait(model: int, client: str, after: int) -> bytes:
    return request(
        "GET",
        f"/api/v1/models/{model}/get_latest_aggregate/?after={after}&wait=30",
        headers={"CLIENT-UUID": client},
    )


def newest_aggregate(lines: Connections, model: int, client: str, after: int) -> int:
    """The id of the round's aggregate, once it is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        (body,) = lines.send_all([_wait(model, client, after)]).bodies
        if body:
            found: int = json.loads(body)["id"]
            return found
    raise RuntimeError("an aggregate did not come within two minutes")


def _counted(server: Server, model: int, num_rounds: int, per_round: int) -> int:
    """How many updates were merged, as each round says, and as the list of updates does."""
    rounds = call(server, "GET", f"models/{model}/rounds/?page_size=200")
    published = [round_ for round_ in rounds if round_["state"] == "published"]
    if sorted(round_["num_updates"] for round_ in published) != [per_round] * num_rounds:
        raise RuntimeError(f"updates by round: {[round_['num_updates'] for round_ in published]}")
    merged: set[int] = set()
    page = 1
    while True:
        path = f"model_updates/?federated_model={model}&status=2&page_size={PAGE}&page={page}"
        updates = call(server, "GET", path)
        merged |= {update["id"] for update in updates}
        if len(updates) < PAGE:
            return len(merged)
        page += 1
