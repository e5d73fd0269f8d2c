"""Fixtures that the client tests share: a scripted server, a clock that only sleeping moves, small weights."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.connect.scripted_server import ScriptedServer


class FakeTime:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now_s += seconds

    def clock(self) -> float:
        return self.now_s

    @property
    def injected(self) -> dict[str, Any]:
        return {"sleep": self.sleep, "clock": self.clock, "rng": random.Random(7)}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"w": rng.normal(size=(3, 4)).astype(np.float32), "b": rng.normal(size=4)}
