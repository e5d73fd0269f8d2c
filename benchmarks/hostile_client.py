"""One client that does its worst to a server on this machine: hostile_client.py ATTACK PORT MODEL CREDENTIAL.

It goes on until it is ended, from an address of its own, 127.0.0.2, and then says how many answers it got.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import count, repeat
from typing import Any

from load import request

ADDRESS = "127.0.0.2"
PAUSE_S = 0.02
JSON_MIB = 48
NUM_PARAMETERS = 1_000_000
"""The size of its own model."""


@dataclass(frozen=True)
class Hostile:
    port: int
    model: str
    credential: str

    def connect(self) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        return asyncio.open_connection("127.0.0.1", self.port, local_addr=(ADDRESS, 0))

    @property
    def headers(self) -> dict[str, str]:
        return {"CLIENT-UUID": self.credential}


ANSWERS: Counter[str] = Counter()
"""By their statuses."""
Attack = Callable[[Hostile], Coroutine[Any, Any, None]]


async def slow_bodies(client: Hostile) -> None:
    """Forty bodies of 4 MB that come at 20 kB/s each."""
    target = f"/api/v1/model_updates/?federated_model={client.model}"
    head = request(
        "POST",
        target,
        headers={
            **client.headers,
            "Content-Type": "application/vnd.safetensors",
            "Content-Length": "4000000",
        },
    )

    async def drip(_: int) -> None:
        _reader, writer = await client.connect()
        writer.write(head)
        for _ in range(4000):
            writer.write(b"\0" * 1000)
            await writer.drain()
            await asyncio.sleep(0.05)

    await _for_ever(drip, 40)


async def huge_json(client: Hostile) -> None:
    """Bodies of JSON near the limit, each of millions of numbers, four at a time."""
    numbers = b"0.5," * (JSON_MIB * 2**18)
    await _repeat(client, _json_update(client, b"[%s0.5]" % numbers), 4)


async def valid_json(client: Hostile) -> None:
    """Updates of its own model as JSON, which are accepted, four at a time."""
    thousand = ",".join(f"{random.gauss(0, 1):.8f}" for _ in range(1000))
    numbers = ",".join([thousand] * (NUM_PARAMETERS // 1000))
    await _repeat(client, _json_update(client, b'{"w0": [%s]}' % numbers.encode()), 4)


def _json_update(client: Hostile, weights: bytes) -> bytes:
    return request(
        "POST",
        "/api/v1/model_updates/",
        headers={**client.headers, "Content-Type": "application/json"},
        body=b'{"federated_model": %s, "data": %s}' % (client.model.encode(), weights),
    )


async def guesses(client: Hostile) -> None:
    """Passwords of somebody, on sixteen connections."""
    body = b'{"username": "anna", "password": "let me in"}'
    await _repeat(
        client,
        request("POST", "/api-token-auth/", headers={"Content-Type": "application/json"}, body=body),
        16,
    )


async def registrations(client: Hostile) -> None:
    """New clients, on sixteen connections."""
    await _repeat(client, request("POST", f"/api/v1/models/{client.model}/register_client/", body=b""), 16)


async def reads(client: Hostile) -> None:
    """Requests that are answered, each another one, on sixteen connections."""
    target = f"/api/v1/models/{client.model}/get_latest_aggregate/?after="
    said = (request("GET", f"{target}{number}", headers=client.headers) for number in count())
    await _send(client, said, 16)


async def waiting_room(client: Hostile) -> None:
    """Twelve hundred requests that wait for news."""
    target = f"/api/v1/models/{client.model}/get_latest_aggregate/?after=0&wait=60"
    await _repeat(client, request("GET", target, headers=client.headers), 1200)


async def connections(client: Hostile) -> None:
    """Three thousand connections that say half a request, and new ones in their place."""

    async def hold(number: int) -> None:
        _reader, writer = await client.connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: ")
        await asyncio.sleep(5 + number % 50 / 10)
        writer.close()

    await _for_ever(hold, 3000)


ATTACKS: dict[str, Attack] = {
    each.__name__: each
    for each in (slow_bodies, huge_json, valid_json, guesses, registrations, reads, waiting_room, connections)
}


async def _for_ever(work: Callable[[int], Awaitable[None]], times: int) -> None:
    async def again(number: int) -> None:
        await asyncio.sleep(number * 0.001)
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await work(number)
            await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*map(again, range(times)))


async def _repeat(client: Hostile, said: bytes, connections: int) -> None:
    """Send the same request on so many connections, again as soon as it is answered."""
    await _send(client, repeat(said), connections)


async def _send(client: Hostile, said: Iterator[bytes], connections: int) -> None:
    """Send these requests on so many connections, on each of them the next as soon as it is answered."""

    async def ask(_: int) -> None:
        reader, writer = await client.connect()
        try:
            while True:
                writer.write(next(said))
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
                await reader.readexactly(int(length or 0))
                ANSWERS[head[9:12].decode()] += 1
                await asyncio.sleep(PAUSE_S)
        finally:
            writer.close()

    await _for_ever(ask, connections)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: (print(json.dumps(ANSWERS), flush=True), os._exit(0)))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(ATTACKS[sys.argv[1]](Hostile(int(sys.argv[2]), sys.argv[3], sys.argv[4])))
