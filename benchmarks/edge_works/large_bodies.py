"""Large bodies up and down: fma beside nginx, which stores what is PUT and sends files by sendfile.

Up: every body is other bytes of a new client, one at a time; fma stores it under its SHA-256 after one fsync, nginx
does neither. What these two take without a network, the hash of the whole in a second thread, stands beside them.
Down: the same file again and again over one connection.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import FMA, Bench, NotInstalled, Result, Row
from edge_ways.api import SAFETENSORS, new_model, next_round, register, weights, with_another_value
from edge_ways.databases import SQLITE, new_databases
from edge_ways.servers import Server, fma, nginx
from goal import Goal
from load import request, send_all

from fma_core import encode

NGINX, DISK, HASHED = "nginx", "write and fsync", "write, fsync and SHA-256"
SIZES_MB = (4, 100)
IN_FLIGHT = 4
MOST_MIB_IN_FLIGHT = 16
MEBIBYTE = 2**20
RUN_MB = 300
NEVER_CLOSES: dict[str, Any] = {"requirement": "require_x_updates", "requirement_args": [1_000_000]}


@dataclass(frozen=True)
class Transfer:
    megabytes: float
    seconds: float
    cpu_seconds: float

    @property
    def mb_per_s(self) -> float:
        return self.megabytes / self.seconds

    @property
    def cpu_ms_per_mb(self) -> float:
        return self.cpu_seconds / self.megabytes * 1e3


def uploads(bench: Bench) -> Iterator[Result]:
    for size_mb in SIZES_MB:
        title = f"upload of {size_mb} MB, one at a time"
        with ExitStack() as stack:
            (database,) = stack.enter_context(new_databases(bench, SQLITE, 1))
            ours = stack.enter_context(fma(bench, database, worker=False))
            web_server, notes = _nginx(bench, stack)
            scratch = stack.enter_context(bench.new_folder("written"))
            body = bytearray(encode(weights(_parameters(bench, size_mb))))
            count = max(1, RUN_MB // size_mb) if not bench.quick else 1
            model = new_model(ours, _parameters(bench, size_mb), **NEVER_CLOSES)
            clients = register(ours, model, max(count, IN_FLIGHT))
            runs: dict[str, list[Transfer]] = defaultdict(list)
            for number in range(bench.repeats + 1):
                found = {name: _write(scratch, body, count, name) for name in (DISK, HASHED)}
                next_round(ours, model)
                paths = [_update_path(model)] * count
                found[FMA] = _put_all(ours, "POST", paths, clients[:count], body)
                if web_server is not None:
                    paths = [f"/{number}-{index}" for index in range(count)]
                    found[NGINX] = _put_all(web_server, "PUT", paths, clients[:count], body)
                if number:  # the first warms up
                    for name, transfer in found.items():
                        runs[name].append(transfer)
            next_round(ours, model)
            grown_mib = _growth_mib(ours, model, clients, body)
        yield _upload_result(title, size_mb, runs, grown_mib, notes)


def downloads(bench: Bench) -> Iterator[Result]:
    for size_mb in SIZES_MB:
        title = f"download of the latest model, {size_mb} MB, one at a time"
        with ExitStack() as stack:
            (database,) = stack.enter_context(new_databases(bench, SQLITE, 1))
            ours = stack.enter_context(fma(bench, database, worker=False))
            web_server, notes = _nginx(bench, stack)
            model = new_model(ours, _parameters(bench, size_mb))
            (client,) = register(ours, model, 1)
            body = encode(weights(_parameters(bench, size_mb)))
            if web_server is not None:
                _put_all(web_server, "PUT", ["/model"], [client], bytearray(body))
            asked = request("GET", _model_path(model), headers=_reader(client))
            count = max(1, RUN_MB // size_mb) if not bench.quick else 1
            runs: dict[str, list[Transfer]] = defaultdict(list)
            for number in range(bench.repeats + 1):
                found = {FMA: _get_all(ours, asked, count, len(body))}
                if web_server is not None:
                    found[NGINX] = _get_all(web_server, request("GET", "/model"), count, len(body))
                if number:
                    for name, transfer in found.items():
                        runs[name].append(transfer)
        yield _download_result(title, size_mb, runs, notes)


def not_modified(bench: Bench) -> Iterator[Result]:
    """Measure a 304: the client has the model already."""
    title = "a 304 for a model of 4 MB, 16 connections"
    with ExitStack() as stack:
        (database,) = stack.enter_context(new_databases(bench, SQLITE, 1))
        ours = stack.enter_context(fma(bench, database, worker=False))
        model = new_model(ours, _parameters(bench, 4))
        (client,) = register(ours, model, 1)
        etag = _etag(ours, model, client)
        asked = request("GET", _model_path(model), headers={**_reader(client), "If-None-Match": etag})
        send_all(ours.port, [asked] * bench.few(300, 20), connections=16)
        count = bench.few(2000, 20)
        cpu_us, rates = [], []
        for _ in range(bench.repeats):
            cpu = ours.cpu_seconds()
            answers = send_all(ours.port, [asked] * count, connections=16)
            cpu_us.append((ours.cpu_seconds() - cpu) / count * 1e6)
            rates.append(answers.per_second)
            if set(answers.statuses) != {304}:
                raise RuntimeError(f"a model that had not changed: {answers.statuses}")
    yield Result(
        title,
        [Row(title, FMA, {"requests/s": max(rates), "cpu µs": min(cpu_us)})],
        [Goal("304: ms of cpu", FMA, min(cpu_us) / 1e3, "≤", 1)],
    )


def _parameters(bench: Bench, size_mb: int) -> int:
    return size_mb * 1_000_000 // 4 // (100 if bench.quick else 1)


def _nginx(bench: Bench, stack: ExitStack) -> tuple[Server | None, list[str]]:
    try:
        return stack.enter_context(nginx(bench)), []
    except NotInstalled as why:
        return None, [str(why)]


def _update_path(model: int) -> str:
    return f"/api/v1/model_updates/?federated_model={model}&num_examples=10"


def _model_path(model: int) -> str:
    return f"/api/v1/models/{model}/get_latest_model/"


def _reader(client: str) -> dict[str, str]:
    return {"CLIENT-UUID": client, "Accept": SAFETENSORS}


def _etag(server: Server, model: int, client: str) -> str:
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(request("GET", _model_path(model), headers=_reader(client)))
        head = b""
        while b"\r\n\r\n" not in head:
            head += line.recv(4096)
    (field,) = (field for field in head.split(b"\r\n") if field.lower().startswith(b"etag:"))
    return field.partition(b":")[2].strip().decode()


def _put_all(server: Server, method: str, paths: list[str], clients: list[str], body: bytearray) -> Transfer:
    cpu, started = server.cpu_seconds(), time.perf_counter()
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        for path, client in zip(paths, clients, strict=True):
            body[-4:] = with_another_value(bytes(body[-4:]))
            _put(line, method, path, client, body)
    seconds = time.perf_counter() - started
    return Transfer(len(body) * len(paths) / 1e6, seconds, server.cpu_seconds() - cpu)


def _put(line: socket.socket, method: str, path: str, client: str, body: bytearray) -> None:
    head = {"CLIENT-UUID": client, "Content-Type": SAFETENSORS, "Content-Length": str(len(body))}
    line.sendall(request(method, path, headers=head))
    line.sendall(body)
    answer = line.recv(65536)
    if not answer.startswith((b"HTTP/1.1 201", b"HTTP/1.1 204")):
        raise RuntimeError(f"{method} {path}: {answer[:500]!r}")
    while b"\r\n\r\n" not in answer:
        answer += line.recv(65536)


def _write(folder: Path, body: bytearray, count: int, what: str) -> Transfer:
    """Measure the disk alone, and beside a thread that hashes the same bytes."""
    cpu, started = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(1) as beside:
        for index in range(count):
            path = folder / str(index)
            hashed = beside.submit(hashlib.sha256, body) if what == HASHED else None
            with open(path, "wb", buffering=0) as file:
                file.write(body)
                os.fsync(file.fileno())
            if hashed is not None:
                hashed.result()
            path.unlink()
    return Transfer(len(body) * count / 1e6, time.perf_counter() - started, time.process_time() - cpu)


def _growth_mib(server: Server, model: int, clients: list[str], body: bytearray) -> float:
    """The memory that `IN_FLIGHT` uploads at one time take more than none, by their number."""
    before = server.memory_bytes()
    peak, is_over = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.01):
            peak = max(peak, server.memory_bytes())

    def send(client: str) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            _put(line, "POST", _update_path(model), client, body)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(send, clients[:IN_FLIGHT]))
    is_over.set()
    watcher.join()
    return (peak - before) / MEBIBYTE / IN_FLIGHT


def _get_all(server: Server, asked: bytes, count: int, size_bytes: int) -> Transfer:
    buffer = bytearray(MEBIBYTE)
    cpu, started = server.cpu_seconds(), time.perf_counter()
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        for _ in range(count):
            line.sendall(asked)
            got, size = line.recv_into(buffer), 0
            while (end := bytes(buffer[:got]).find(b"\r\n\r\n")) < 0:
                got += line.recv_into(memoryview(buffer)[got:])
            if not buffer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"a download: {bytes(buffer[:got])!r}")
            size = got - end - 4
            while size < size_bytes:
                size += line.recv_into(buffer)
    seconds = time.perf_counter() - started
    return Transfer(size_bytes * count / 1e6, seconds, server.cpu_seconds() - cpu)


def _upload_result(
    title: str, size_mb: int, runs: dict[str, list[Transfer]], grown_mib: float, notes: list[str]
) -> Result:
    rows = [_row(title, name, runs) for name in runs]
    grown = {f"MiB for each of {IN_FLIGHT}": grown_mib}
    rows = [Row(title, row.way, {**row.numbers, **grown}) if row.way == FMA else row for row in rows]
    goals = [Goal(f"upload {size_mb} MB: MiB for each in flight", FMA, grown_mib, "≤", MOST_MIB_IN_FLIGHT)]
    return Result(title, rows, [*_half_of_nginx(f"upload {size_mb} MB", runs), *goals], notes)


def _download_result(title: str, size_mb: int, runs: dict[str, list[Transfer]], notes: list[str]) -> Result:
    rows = [_row(title, name, runs) for name in runs]
    return Result(title, rows, _half_of_nginx(f"download {size_mb} MB", runs), notes)


def _row(title: str, name: str, runs: dict[str, list[Transfer]]) -> Row:
    rate = _best(runs[name])
    return Row(
        title,
        name,
        {
            "MB/s": rate,
            "cpu ms/MB": min(run.cpu_ms_per_mb for run in runs[name]),
            "× nginx's MB/s": rate / _best(runs[NGINX]) if NGINX in runs else None,
        },
    )


def _half_of_nginx(what: str, runs: dict[str, list[Transfer]]) -> list[Goal]:
    if NGINX not in runs:
        return []
    return [Goal(f"{what}: MB/s by nginx's", FMA, _best(runs[FMA]) / _best(runs[NGINX]), "≥", 0.5)]


def _best(runs: list[Transfer]) -> float:
    return max(run.mb_per_s for run in runs)
