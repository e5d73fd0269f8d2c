"""Honest clients that train in rounds, beside one client that does its worst, and alone.

The server has its own limits, as it comes. Each attack is measured between two spans of time without one.
"""

from __future__ import annotations

import json
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import FMA, Bench, Result, Row
from edge_ways.api import new_model, register, update, weights, with_another_value
from edge_ways.databases import SQLITE, new_databases
from edge_ways.servers import Server, fma
from goal import Goal
from hostile_client import ATTACKS
from hostile_client import NUM_PARAMETERS as HOSTILE_PARAMETERS
from load import request

from fma_api.environment import SETTINGS
from fma_core import encode

NUM_PARAMETERS = 1000
NUM_CLIENTS = 8
SPAN_S = 5.0
BEGINS_S = 1.5
MOST_TIMES = 1.5
EVERYTHING = "everything"
"""All attacks at once, each in a process of its own."""
DEFAULTS = {
    each.name: each.default for each in SETTINGS if each.name in ("FMA_LOGIN_RATE", "FMA_REGISTRATION_RATE")
}


@dataclass
class Span:
    """The times that honest clients took for their updates, and from one round to the next."""

    posts_s: list[float] = field(default_factory=list)
    rounds_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)


def hostile(bench: Bench) -> Iterator[Result]:
    title = f"{NUM_CLIENTS} honest clients in rounds beside a hostile one, {SQLITE}"
    attacks = [*ATTACKS, EVERYTHING]
    alone: dict[str, list[Span]] = {name: [] for name in attacks}
    beside: dict[str, list[Span]] = {name: [] for name in attacks}
    answers: dict[str, Counter[str]] = {name: Counter() for name in attacks}
    with ExitStack() as stack:
        (database,) = stack.enter_context(new_databases(bench, SQLITE, 1))
        server = stack.enter_context(fma(bench, database, env=DEFAULTS))
        model = new_model(
            server, NUM_PARAMETERS, requirement="require_x_updates", requirement_args=[NUM_CLIENTS]
        )
        other = new_model(
            server, HOSTILE_PARAMETERS, requirement="require_x_updates", requirement_args=[10**6]
        )
        honest = register(server, model, NUM_CLIENTS)
        (enemy,) = register(server, other, 1)
        span_s = SPAN_S if not bench.quick else 1.0
        train(server, model, honest, span_s)
        for _ in range(bench.repeats):
            for name in attacks:
                alone[name].append(train(server, model, honest, span_s))
                with _attack(server, name, other, enemy, answers[name]):
                    beside[name].append(train(server, model, honest, span_s))
    notes = [f"{name}: answered {dict(found) or 'nothing'}" for name, found in answers.items()]
    yield _result(title, alone, beside, notes)


def train(server: Server, model: int, honest: Sequence[str], seconds: float) -> Span:
    """Let all of them send updates and wait for the next model until the time is over and the last round is done.

    Each has an address of its own, as clients of different organisations have.
    """
    span, lock = Span(), threading.Lock()
    until = time.perf_counter() + seconds
    at_once = threading.Barrier(len(honest))
    body = encode(weights(NUM_PARAMETERS))
    is_over = False

    def live(credential: str, address: str) -> None:
        nonlocal is_over
        newest = 0
        with socket.create_connection(
            ("127.0.0.1", server.port), timeout=120, source_address=(address, 0)
        ) as line:
            while True:
                if at_once.wait() == 0:  # they all train for the same time
                    is_over = time.perf_counter() > until
                at_once.wait()
                if is_over:
                    return
                began_at = time.perf_counter()
                status, _ = ask(line, update(model, credential, with_another_value(body)))
                posted_at = time.perf_counter()
                newest = wait(line, model, credential, newest)
                with lock:
                    span.statuses[status] += 1
                    span.posts_s.append(posted_at - began_at)
                    span.rounds_s.append(time.perf_counter() - began_at)

    threads = [
        threading.Thread(target=live, args=(credential, f"127.0.1.{number}"))
        for number, credential in enumerate(honest, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return span


def wait(line: socket.socket, model: int, credential: str, newest: int) -> int:
    """The id of an aggregate that is newer, when there is one."""
    while True:
        target = f"/api/v1/models/{model}/get_latest_model/?after={newest}&wait=30"
        status, aggregate = ask(
            line,
            request(
                "GET", target, headers={"CLIENT-UUID": credential, "Accept": "application/vnd.safetensors"}
            ),
        )
        if status == 200 and aggregate:
            return aggregate


def ask(line: socket.socket, said: bytes) -> tuple[int, int]:
    """The status of the answer, and the number of the aggregate that it names."""
    line.sendall(said)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _more(line)
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(field.lower().split(b": ", 1) for field in head.split(b"\r\n")[1:])
    left = int(fields.get(b"content-length", 0)) - len(body)
    while left > 0:
        left -= len(_more(line))
    return int(head[9:12]), int(fields.get(b"fma-aggregate", 0))


def _more(line: socket.socket) -> bytes:
    piece = line.recv(65536)
    if not piece:
        raise ConnectionError("the server hung up on an honest client")
    return piece


@contextmanager
def _attack(server: Server, name: str, model: int, credential: str, answers: Counter[str]) -> Iterator[None]:
    """answers: counts those that the hostile client gets, by their statuses."""
    script = Path(__file__).resolve().parents[1] / "hostile_client.py"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), each, str(server.port), str(model), credential],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for each in (ATTACKS if name == EVERYTHING else [name])
    ]
    try:
        time.sleep(BEGINS_S)
        if any(process.poll() is not None for process in processes):
            raise RuntimeError(f"the attack {name} ended by itself")
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate()
            answers.update(json.loads(said or "{}"))
        time.sleep(BEGINS_S)  # until the server has seen it go


def _p95_ms(times: Sequence[float]) -> float:
    return sorted(times)[int(0.95 * len(times))] * 1e3


def _result(
    title: str, alone: dict[str, list[Span]], beside: dict[str, list[Span]], notes: list[str]
) -> Result:
    rows, goals = [], []
    for name, spans in beside.items():
        pairs = list(zip(alone[name], spans, strict=True))
        posts = statistics.median(_p95_ms(b.posts_s) / _p95_ms(a.posts_s) for a, b in pairs)
        rounds = statistics.median(_p95_ms(b.rounds_s) / _p95_ms(a.rounds_s) for a, b in pairs)
        refused = sum(count for span in spans for status, count in span.statuses.items() if status != 201)
        numbers = {
            "posts p95 ms, alone": statistics.median(_p95_ms(a.posts_s) for a, _ in pairs),
            "beside": statistics.median(_p95_ms(b.posts_s) for _, b in pairs),
            "rounds p95 ms, alone": statistics.median(_p95_ms(a.rounds_s) for a, _ in pairs),
            "rounds beside": statistics.median(_p95_ms(b.rounds_s) for _, b in pairs),
            "posts ×": posts,
            "rounds ×": rounds,
            "refused": refused,
        }
        what = name.replace("_", " ")
        rows.append(Row(title, what, numbers))
        goals.append(
            Goal(f"beside {what}: honest p95 of a round by that alone", FMA, rounds, "≤", MOST_TIMES)
        )
        goals.append(Goal(f"beside {what}: honest p95 of a post by that alone", FMA, posts, "≤", MOST_TIMES))
    return Result(title, rows, goals, notes)
