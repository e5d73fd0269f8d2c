"""Strategies over HTTP, with the client library and a worker: what clients must be told, send and get back."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fma_connect import Client, DeveloperClient, exceptions
from tests.servers.fma import FmaServer, StartFma

pytestmark = [pytest.mark.processes, pytest.mark.slow]

Arrays = dict[str, np.ndarray]
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FmaServer]:
    with ExitStack() as stack:
        yield StartFma(tmp_path_factory.mktemp("strategies"), stack)()


@pytest.fixture(scope="module")
def developer(server: FmaServer) -> Iterator[DeveloperClient]:
    with DeveloperClient(server.base_url, token=server.install.add_user("ann").token) as found:
        yield found


class Federation:
    """A model and its clients, which answer one after the other and then wait for the aggregate."""

    def __init__(
        self, developer: DeveloperClient, folder: Path, stack: ExitStack, num_clients: int, **strategy: Any
    ) -> None:
        self.model = developer.create_model(
            "m", requirement="require_x_updates", requirement_args=[num_clients], **strategy
        )["id"]
        self.clients = [
            stack.enter_context(Client(developer.url, self.model, credential_file=folder / f"{number}"))
            for number in range(num_clients)
        ]
        for client in self.clients:
            client.register()

    def play(self, answers: list[tuple[Arrays, dict[str, Any]]]) -> Arrays:
        """Push every client's answer with its options; what they all pull next."""
        for client, (arrays, options) in zip(self.clients, answers, strict=True):
            client.push(arrays, **options)
        pulled = [client.wait_for_next(timeout_s=PATIENCE_S) for client in self.clients]
        assert pulled[0] is not None
        assert len({one.base_aggregate for one in pulled if one is not None}) == 1
        return pulled[0].copies()


@pytest.fixture
def federate(developer: DeveloperClient, tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:

        def start(num_clients: int, initial: Mapping[str, np.ndarray], **strategy: Any) -> Federation:
            made = Federation(developer, Path(tempfile.mkdtemp(dir=tmp_path)), stack, num_clients, **strategy)
            developer.set_initial_model(made.model, initial)
            for client in made.clients:
                client.pull()
            return made

        yield start


def test_scaffold_trains_with_the_control_that_the_server_keeps(federate: Any) -> None:
    targets, steps, rate = np.array([[4.0, 0.0], [0.0, 8.0]]), 3, 0.1
    federation = federate(2, {"w": np.zeros(2)}, aggregator="scaffold")
    own, x, c = np.zeros((2, 2)), np.zeros(2), np.zeros(2)
    for _ in range(3):
        answers, deltas, controls = [], [], []  # type: ignore[var-annotated]
        for number, client in enumerate(federation.clients):
            told = client.state("aggregator.c").get("w", np.zeros(2))
            np.testing.assert_allclose(told, c, atol=1e-12)
            y = x.copy()
            for _ in range(steps):
                y -= rate * ((y - targets[number]) - own[number] + told)
            fresh = own[number] - told + (x - y) / (steps * rate)
            answers.append(({"w": y, "control/w": fresh - own[number]}, {}))
            deltas.append(y - x)
            controls.append(fresh - own[number])
            own[number] = fresh
        x = x + np.mean(deltas, axis=0)
        c = c + np.mean(controls, axis=0)
        np.testing.assert_allclose(federation.play(answers)["w"], x, atol=1e-12)


def test_fedadam_on_differences_keeps_its_moments(federate: Any) -> None:
    federation = federate(
        1,
        {"w": np.zeros(3), "n": np.array(0)},
        update_kind="delta",
        optimiser={"name": "fedadam", "learning_rate": 0.5},
    )
    x, m, v = np.zeros(3), np.zeros(3), np.full(3, 1e-6)
    for number in range(1, 4):
        delta = np.array([1.0, -2.0, 0.5]) / number
        m, v = 0.9 * m + 0.1 * delta, 0.99 * v + 0.01 * delta**2
        x = x + 0.5 * m / (np.sqrt(v) + 1e-3)
        found = federation.play([({"w": delta, "n": np.array(number)}, {})])
        np.testing.assert_allclose(found["w"], x, rtol=1e-12)
        assert found["n"] == number


def test_personal_arrays_are_not_sent_and_stay_as_they_were(federate: Any) -> None:
    initial = {"w": np.zeros(2, np.float32), "norm/mean": np.array([3.0, 4.0], np.float32)}
    federation = federate(2, initial, stages=[{"name": "exclude", "patterns": ["norm/*"]}])
    with pytest.raises(exceptions.InvalidRequest, match="norm/mean"):
        federation.clients[0].push(initial)
    found = federation.play([({"w": np.full(2, value, np.float32)}, {}) for value in (1.0, 3.0)])
    assert {name: array.tolist() for name, array in found.items()} == {"w": [2, 2], "norm/mean": [3, 4]}


def test_clients_are_told_mu_and_asked_for_what_the_rule_needs(federate: Any) -> None:
    prox = federate(1, {"w": np.zeros(2)}, aggregator="fedprox", aggregator_params={"mu": 0.25})
    assert prox.clients[0].client_config() == {"mu": 0.25}


def test_fednova_refuses_updates_that_do_not_say_their_steps(federate: Any) -> None:
    federation = federate(2, {"w": np.zeros(2)}, aggregator="fednova")
    with pytest.raises(exceptions.InvalidRequest, match="num_steps"):
        federation.clients[0].push({"w": np.ones(2)})
    found = federation.play(
        [
            ({"w": np.full(2, 2.0)}, {"metrics": {"num_steps": 2}}),
            ({"w": np.full(2, 4.0)}, {"metrics": {"num_steps": 8}}),
        ]
    )
    # Steps of 1 and of 0.5 each on average, taken (2 + 8) / 2 times.
    np.testing.assert_allclose(found["w"], 5 * (1 + 0.5) / 2)


def test_krum_outvotes_an_attacker_and_waits_for_enough(federate: Any, developer: DeveloperClient) -> None:
    federation = federate(5, {"w": np.zeros(2)}, aggregator="krum", aggregator_params={"f": 1})
    values = (1.0, 1.1, 0.9, 1.0, 1e6)
    found = federation.play([({"w": np.full(2, value)}, {}) for value in values])
    assert found["w"].tolist() == [1.0, 1.0]
    assert developer.model(federation.model)["min_updates"] == 5
