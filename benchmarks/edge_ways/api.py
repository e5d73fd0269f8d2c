"""Calls to fma's API, and to that of Capital One's FMA, which is the same where both have it."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from load import request, send_all

from edge_ways.servers import Server
from fma_core import encode

SAFETENSORS = "application/vnd.safetensors"
JSON = "application/json"


def weights(num_parameters: int, *, arrays: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """Normal float32 values in arrays of one size."""
    rng = np.random.default_rng(seed)
    size = num_parameters // arrays
    return {f"w{index}": rng.standard_normal(size, dtype=np.float32) for index in range(arrays)}


def call(server: Server, method: str, path: str, **more: Any) -> Any:
    """The developer's call; the parsed answer. Raises httpx.HTTPStatusError."""
    headers = {**server.headers, **more.pop("headers", {})}
    answer = httpx.request(
        method,
        f"http://127.0.0.1:{server.port}/api/v1/{path}",
        headers=headers,
        timeout=60,
        trust_env=False,
        **more,
    )
    if answer.is_error:
        raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
    return answer.json()


def new_model(server: Server, num_parameters: int, *, arrays: int = 1, **fields: Any) -> int:
    """A model of fma with its first weights, started."""
    about = {"name": "benchmark", "aggregator": "mean", "allow_aggregation": True, **fields}
    model: int = call(server, "POST", "models/", json=about)["id"]
    body = encode(weights(num_parameters, arrays=arrays))
    call(
        server, "POST", f"models/{model}/initial_model/", content=body, headers={"Content-Type": SAFETENSORS}
    )
    return model


def register(server: Server, model: int, count: int, *, connections: int = 8) -> list[str]:
    """The credentials of new clients."""
    asked = request("POST", f"/api/v1/models/{model}/register_client/", body=b"")
    answers = send_all(server.port, [asked] * count, connections=connections)
    if set(answers.statuses) != {200}:
        raise RuntimeError(f"registering: {answers.statuses}")
    return [json.loads(body)["uuid"] for body in answers.bodies]


def next_round(server: Server, model: int) -> None:
    """Cancel the open round: the next one takes the same clients again."""
    newest = call(server, "GET", f"models/{model}/rounds/?page_size=1")[0]
    call(server, "POST", f"models/{model}/rounds/{newest['number']}/cancel/")


def updates_as_safetensors(model: int, credentials: Sequence[str], body: bytes) -> list[bytes]:
    """An update of each, whose last value is nobody else's."""
    return [update(model, credential, with_another_value(body)) for credential in credentials]


def update(model: int, credential: str, body: bytes, **headers: str) -> bytes:
    target = f"/api/v1/model_updates/?federated_model={model}&num_examples=10"
    head = {"CLIENT-UUID": credential, "Content-Type": SAFETENSORS, **headers}
    return request("POST", target, headers=head, body=body)


def updates_as_json(model: int, credentials: Sequence[str], values: np.ndarray) -> list[bytes]:
    """The same for either FMA."""
    head, bracket, _ = json.dumps({"federated_model": model, "data": values.tolist()}).rpartition("]")
    return [
        request(
            "POST",
            "/api/v1/model_updates/",
            headers={"CLIENT-UUID": credential, "Content-Type": JSON},
            body=f"{head.rpartition(',')[0]}, {random.random()}{bracket}}}".encode(),
        )
        for credential in credentials
    ]


def with_another_value(body: bytes) -> bytes:
    """Another last float32: a server that has the same bytes already may do without them."""
    return body[:-4] + struct.pack("<f", random.random())
