"""Deadlines fire by the server's own clock, with nobody calling."""

import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from fma_connect import Client, DeveloperClient, exceptions
from tests.servers.fma import StartFma

pytestmark = [pytest.mark.processes, pytest.mark.slow]

DEADLINE_S = 3.0
PATIENCE_S = 40.0


def test_a_round_ends_when_all_clients_have_stopped(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = StartFma(tmp_path / "fma", stack)()
        developer = stack.enter_context(
            DeveloperClient(server.base_url, token=server.install.add_user("ann").token)
        )
        policy = {"goal": 3, "quorum": 2, "deadline_s": DEADLINE_S, "on_failed_quorum": "end"}
        model = developer.create_model("m", round_policy=policy)["id"]
        developer.set_initial_model(model, {"w": np.zeros(2)})
        clients = [Client(developer.url, model, credential_file=tmp_path / f"{n}") for n in range(3)]
        for client in clients:
            client.register()
        for number, client in enumerate(clients[:2]):
            assert client.join(timeout_s=PATIENCE_S) is not None
            client.push({"w": np.full(2, float(number))})
        for client in clients:
            client.close()

        # Two of three have answered and gone; nobody says anything to the server until it must be over.
        time.sleep(2 * DEADLINE_S + 4)

        ends_at = time.monotonic() + PATIENCE_S
        while developer.model(model)["state"] != "ended" and time.monotonic() < ends_at:
            time.sleep(1)
        rounds = {round_["number"]: round_ for round_ in developer.rounds(model)}
        assert rounds[1]["state"] == "published"
        assert rounds[1]["num_updates"] == 2
        # The second round found nobody at all, and with it the experiment ended, as the policy says.
        assert (rounds[2]["state"], rounds[2]["failure"]["code"]) == ("failed", "quorum_not_met")
        assert developer.model(model)["end_reason"] == "quorum_not_met"
        late = stack.enter_context(Client(developer.url, model, credential_file=tmp_path / "0"))
        with pytest.raises(exceptions.ExperimentEnded):
            late.push({"w": np.ones(2)})
