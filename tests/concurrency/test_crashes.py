"""kill -9 of the worker, anywhere: after a restart exactly one aggregate, no update lost, none counted twice."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fma_core.arrays.codecs.safetensors import decode, encode
from tests.concurrency.crashing_worker import POINTS
from tests.servers import fma
from tests.servers.fma import FmaInstall, FmaServer
from tests.servers.process import ServerProcess

pytestmark = [pytest.mark.processes, pytest.mark.slow]

OpenClient = Callable[[dict[str, str]], httpx.Client]

SAFETENSORS = "application/vnd.safetensors"
# A lease that is over by the time a new worker is up, so that the new one takes the round up at once.
ENV = {"FMA_LEASE_SECONDS": "1", "FMA_WORKER_PROCESSES": "2"}
OF_A_STATE = ("after_fold", "after_store", "after_stores", "before_commit")


def start_crashing_worker(install: FmaInstall, point: str, flag: Path) -> ServerProcess:
    log = flag.with_name("crashing.log")
    process = ServerProcess(
        [fma.COMMAND[0], "-m", "tests.concurrency.crashing_worker", point, str(flag)],
        env=install.env,
        cwd=fma.REPOSITORY,
        log=log,
        forks=install.forks,
    )
    install.processes.append(process)
    return process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FmaServer]:
    """A web server without a worker, for all tests of this file."""
    with FmaInstall(tmp_path_factory.mktemp("crashes") / "data", ENV) as install:
        install.migrate()
        yield install.start_web()


@contextmanager
def worked_by(
    server: FmaServer, owner: str, env: Mapping[str, str]
) -> Iterator[tuple[FmaInstall, httpx.Client, OpenClient]]:
    """Where to start workers, which end with the block; a developer's client, and a way to open more."""
    user = server.install.add_user(owner)
    with FmaInstall(server.data_dir, {**server.install.env, **env}) as workers, ExitStack() as connections:

        def open_client(headers: dict[str, str]) -> httpx.Client:
            return connections.enter_context(
                httpx.Client(base_url=f"{server.base_url}/api/v1/", headers=headers)
            )

        yield workers, open_client(user.headers), open_client


def make_model(
    owner: httpx.Client, open_client: OpenClient, num_clients: int, **options: Any
) -> tuple[int, list[httpx.Client]]:
    model = owner.post(
        "models/",
        json={
            "name": "crash",
            "aggregator": "mean",
            "allow_aggregation": True,
            "requirement": "require_x_updates",
            "requirement_args": [num_clients],
            **options,
        },
    ).json()["id"]
    clients = []
    for _ in range(num_clients):
        credential = owner.post(f"models/{model}/register_client/").json()["uuid"]
        clients.append(open_client({"CLIENT-UUID": credential}))
    return model, clients


def send(client: httpx.Client, model: int, value: float, num_examples: int, base: int | None = None) -> int:
    params = {"federated_model": model, "num_examples": num_examples}
    answer = client.post(
        "model_updates/",
        params=params if base is None else {**params, "base_aggregate": base},
        content=encode({"w": np.full(1000, value)}),
        headers={"Content-Type": SAFETENSORS},
    )
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


# Where an optimiser has more to lose, the next test looks at both.
@pytest.mark.parametrize("point", [point for point in POINTS if point not in OF_A_STATE])
def test_a_killed_worker_costs_time_and_nothing_else(server: FmaServer, point: str, tmp_path: Path) -> None:
    with worked_by(server, tmp_path.name, ENV) as (install, owner, open_client):
        model, clients = make_model(owner, open_client, 3)
        doomed = start_crashing_worker(install, point, tmp_path / "crashed")

        sent = [
            send(client, model, value, n)
            for client, value, n in zip(clients, (1.0, 2.0, 6.0), (1, 2, 5), strict=True)
        ]
        assert doomed.wait() == -9
        assert (tmp_path / "crashed").exists()
        # While nobody works, clients go on: this belongs to whatever round is open.
        early = send(clients[0], model, 7.0, 1)
        install.start_worker()
        answer = clients[0].get(
            f"models/{model}/get_latest_model/?after=0&wait=60", timeout=70, headers={"Accept": SAFETENSORS}
        )

        assert answer.status_code == 200, server.process.log_text()[-3000:]
        first_round = owner.get(f"models/{model}/rounds/1/").json()
        aggregates = owner.get("model_aggregates/").json()
        updates = {
            update["id"]: update for update in owner.get("model_updates/", params={"page_size": 100}).json()
        }
        assert first_round["state"] == "published"
        assert len(aggregates) == 1
        merged = {
            number for number, update in updates.items() if update["applied_aggregate"] == aggregates[0]["id"]
        }
        # Before the claim the round was still open, so the fourth update replaced its client's first one.
        if point == "before_claim":
            assert merged == {*sent[1:], early}
            expected = (7.0 * 1 + 2.0 * 2 + 6.0 * 5) / 8
        else:
            assert merged == set(sent)
            assert updates[early]["status"] == 0
            expected = (1.0 * 1 + 2.0 * 2 + 6.0 * 5) / 8
        np.testing.assert_array_equal(decode(answer.content)["w"], np.full(1000, expected))
        assert all(update["status"] == 2 for number, update in updates.items() if number in merged)
        with closing(sqlite3.connect(install.data_dir / "fma.sqlite3")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("killed", ["the process that folds", "the whole worker"])
def test_a_dead_worker_is_known_before_its_lease_is_over(
    server: FmaServer, killed: str, tmp_path: Path
) -> None:
    env = {"FMA_LEASE_SECONDS": "300", "FMA_WORKER_PROCESSES": "1"}
    with worked_by(server, tmp_path.name, env) as (install, owner, open_client):
        model, clients = make_model(owner, open_client, 1)
        point = "after_claim_alone" if killed == "the process that folds" else "after_claim"
        doomed = start_crashing_worker(install, point, tmp_path / "crashed")
        send(clients[0], model, 1.0, 1)
        if killed == "the whole worker":
            assert doomed.wait() == -9
            install.start_worker()

        answer = clients[0].get(
            f"models/{model}/get_latest_model/?after=0&wait=40", timeout=70, headers={"Accept": SAFETENSORS}
        )

        assert answer.status_code == 200, server.process.log_text()[-3000:]
        assert (tmp_path / "crashed").exists()


def train(clients: list[httpx.Client], model: int, base: int | None) -> set[int]:
    return {
        send(client, model, 1.0 + place**2 + (base is None), place + 1, base)
        for place, client in enumerate(clients)
    }


def newer(client: httpx.Client, model: int, than: int | None) -> httpx.Response:
    """The weights of the next aggregate; its id is in the header FMA-Aggregate."""
    answer = client.get(
        f"models/{model}/get_latest_model/?after={than or 0}&wait=60",
        timeout=70,
        headers={"Accept": SAFETENSORS},
    )
    assert answer.status_code == 200
    return answer


@pytest.mark.parametrize("point", OF_A_STATE)
def test_a_killed_worker_costs_neither_updates_nor_the_optimisers_state(
    server: FmaServer, point: str, tmp_path: Path
) -> None:
    with worked_by(server, tmp_path.name, ENV) as (install, owner, open_client):
        flag = tmp_path / "crashed"
        flag.touch()  # while it is there the worker works as it should
        doomed = start_crashing_worker(install, point, flag)
        results = []
        for is_doomed in (True, False):
            model, clients = make_model(
                owner,
                open_client,
                2,
                optimiser={"name": "fedadam"},
                initial_model={"w": [0.0] * 1000},
            )
            train(clients, model, None)
            first = int(newer(clients[0], model, None).headers["FMA-Aggregate"])
            if is_doomed:
                flag.unlink()
            sent = train(clients, model, first)
            early = None
            if is_doomed:
                assert doomed.wait() == -9
                early = send(clients[0], model, 7.0, 1, first)  # belongs to the next round
                install.start_worker()
            answer = newer(clients[0], model, first)
            second = int(answer.headers["FMA-Aggregate"])
            results.append((answer.content, owner.get(f"model_aggregates/{second}/state/").content))

            aggregates = owner.get("model_aggregates/").json()
            assert {it["id"] for it in aggregates if it["federated_model"] == model} == {first, second}
            updates = owner.get("model_updates/", params={"page_size": 100}).json()
            merged = {it["id"]: it["status"] for it in updates if it["applied_aggregate"] == second}
            assert merged == dict.fromkeys(sent, 2)
            assert [it["status"] for it in updates if it["id"] == early] == [0] * is_doomed

        assert results[0] == results[1]
        with closing(sqlite3.connect(install.data_dir / "fma.sqlite3")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert decode(results[0][1])["num_steps"] == 2
