"""Whole federations over HTTP, on each kind of database, store and queue that a deployment may have."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fma_connect import Client, DeveloperClient
from tests.servers.fma import FmaServer, StartFma
from tests.servers.postgres import PostgresServer
from tests.servers.redis import private_redis
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.processes, pytest.mark.slow]

NUM_CLIENTS = 3
NUM_ROUNDS = 4
NUM_EXAMPLES = (1, 2, 5)


@pytest.fixture(params=["sqlite-disk", "postgres-s3", "redis"])
def server(request: pytest.FixtureRequest, fma_server: StartFma, tmp_path: Path) -> Iterator[FmaServer]:
    with ExitStack() as stack:
        # Who is not woken would come too late.
        env: dict[str, str | None] = {"FMA_POLL_SECONDS": "60"}
        if request.param == "postgres-s3":
            database: PostgresServer = request.getfixturevalue("postgres_server")
            store: S3Server = request.getfixturevalue("s3_server")
            env["FMA_DATABASE_URL"] = stack.enter_context(database.migrated_database())
            env |= store.new_bucket().environment
        elif request.param == "redis":
            env["FMA_BROKER_URL"] = stack.enter_context(private_redis(tmp_path))
        # Stopped before what it depends on.
        with ExitStack() as own:
            yield StartFma(tmp_path, own)(env)


def train(client: Client, target: float, num_examples: int) -> list[int]:
    """Go half of the way to this client's target in every round; the aggregates that it trained from."""
    bases = []
    pulled = client.pull()
    for _ in range(NUM_ROUNDS):
        assert pulled is not None
        bases.append(pulled.base_aggregate or 0)
        arrays = {name: ((array + target) / 2).astype(array.dtype) for name, array in pulled.arrays.items()}
        client.push(arrays, num_examples=num_examples, metrics={"loss": abs(target)})
        pulled = client.wait_for_next(timeout_s=60)
    return bases


def test_every_update_of_every_round_is_merged_once(server: FmaServer, tmp_path: Path) -> None:
    token = server.install.add_user("ann").token
    with ExitStack() as stack:
        developer = stack.enter_context(DeveloperClient(server.base_url, token=token))
        model = developer.create_model(
            "e2e", requirement="require_x_updates", requirement_args=[NUM_CLIENTS]
        )["id"]
        developer.set_initial_model(model, {"w": np.zeros((4, 3), np.float32), "b": np.zeros(3, np.float64)})
        clients = [
            stack.enter_context(Client(server.base_url, model, credential_file=tmp_path / f"client-{number}"))
            for number in range(NUM_CLIENTS)
        ]
        targets = (1.0, 2.0, 4.0)
        with ThreadPoolExecutor(NUM_CLIENTS) as pool:
            bases = list(pool.map(train, clients, targets, NUM_EXAMPLES))

        rounds = {round_["number"]: round_ for round_ in developer.rounds(model)}
        updates = developer.updates(model)
        latest = clients[0].pull()

    # x ← (x + t̄) / 2 with t̄ the weighted mean of the targets, from x = 0.
    mean_target = np.average(targets, weights=NUM_EXAMPLES)
    assert latest is not None
    for array in latest.arrays.values():
        np.testing.assert_allclose(array, mean_target * (1 - 0.5**NUM_ROUNDS), rtol=1e-6)
    assert bases[0] == bases[1] == bases[2]
    assert [rounds[number]["state"] for number in range(1, NUM_ROUNDS + 1)] == ["published"] * NUM_ROUNDS
    assert {rounds[number]["attempts"] for number in range(1, NUM_ROUNDS + 1)} == {1}
    assert all(seconds_until_claimed(rounds[number]) < 10 for number in range(1, NUM_ROUNDS + 1))
    assert len(updates) == NUM_ROUNDS * NUM_CLIENTS
    assert {update["status"] for update in updates} == {2}
    merged = {(update["applied_aggregate"], update["client"]) for update in updates}
    assert len(merged) == NUM_ROUNDS * NUM_CLIENTS


def seconds_until_claimed(round_: dict[str, Any]) -> float:
    ready, claimed = (datetime.fromisoformat(round_[name]) for name in ("ready_on", "claimed_on"))
    return (claimed - ready).total_seconds()
