"""Edge cases: clients drop out, are late, send twice, send invalid data, or are too few.

    python examples/edge_cases.py

Each case is a small experiment, and compares the behaviour of the server with the documentation
(docs/explanation/rounds.md, docs/reference/api.md). The program ends with an error at the first difference.

It starts its own server, unless --url and --token name another one.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import numpy as np
import safetensors.numpy
from federation import add_server_options, developer_of, finished_round

from fma_connect import Client, DeveloperClient, Joined
from fma_connect.exceptions import ExperimentEnded, InvalidRequest, LateUpdate, NotSelected, Refused

WEIGHTS = {"w": np.zeros(3, np.float32)}
INVALID = 4  # the status of an update that does not count


def dropout(fma: DeveloperClient) -> None:
    """One of three clients drops out: at its deadline the round closes with the two that answered."""
    policy = {"goal": 3, "quorum": 2, "deadline_s": 3}
    with experiment(fma, num_clients=3, round_policy=policy) as (model, clients):
        for client in clients:
            expect("every client takes part", isinstance(client.join_once(), Joined), True)
        for client in clients[:2]:
            client.push(WEIGHTS)
        round_ = finished_round(fma, model, 1)
        expect("the round is", round_["state"], "published")
        expect("updates in it", round_["num_updates"], 2)
        lost = {row["client"]: row["answered_on"] for row in fma.selection(model, 1)["clients"]}
        expect("what came of the third client", lost[clients[2].register()], None)
        expect("it may take part in the next round", isinstance(clients[2].join_once(), Joined), True)


def late(fma: DeveloperClient) -> None:
    """A client answers when its round is over: refused, or counted in the next round, as the policy says."""
    for late_updates in ("refuse", "next_round"):
        policy = {"goal": 1, "over_selection": 2, "late_updates": late_updates}
        rested = [
            {"name": "min_rounds_between_turns", "rounds": 1}
        ]  # so that the third client has the next turn
        with experiment(
            fma, num_clients=3, round_policy=policy, selector={"name": "random"}, eligibility=rested
        ) as (model, clients):
            fast, slow = [client for client in clients if isinstance(client.join_once(), Joined)]
            fast.push(WEIGHTS)
            finished_round(fma, model, 1)
            if late_updates == "refuse":
                expect("late update, refused", code_of(LateUpdate, slow.push, WEIGHTS), "late_update")
            else:
                expect("late update, counted in round", slow.push(WEIGHTS)["round"], 2)
                expect("updates in that round", finished_round(fma, model, 2)["num_updates"], 1)


def duplicate(fma: DeveloperClient) -> None:
    """A client sends the same update twice, and then another one: it counts once, the newest of them."""
    with experiment(fma, num_clients=2, round_policy={"goal": 2}) as (model, (client, _)):
        first, again = client.push(WEIGHTS), client.push(WEIGHTS)
        expect("the same update again is the same row", again["id"], first["id"])
        other = client.push({"w": np.ones(3, np.float32)})
        statuses = {update["id"]: update["status"] for update in fma.updates(model)}
        expect("the earlier update", statuses[first["id"]], INVALID)
        expect("updates in the round", fma.rounds(model)[0]["num_updates"], 1)
        expect("the later one is new", other["id"] != first["id"], True)


def malformed(fma: DeveloperClient) -> None:
    """A client sends what cannot be an update: it is told what is wrong, and nothing of it is kept."""
    with experiment(fma, num_clients=1, round_policy={"goal": 1}) as (model, (client,)):
        wrong_shape = {"w": np.zeros(4, np.float32)}
        not_a_number = safetensors.numpy.save({"w": np.full(3, np.nan, np.float32)})
        expect("wrong shape", code_of(InvalidRequest, client.push, wrong_shape), "shape_mismatch")
        expect("not a number", code_of_bytes(fma, model, not_a_number), "non_finite_value")
        expect("no safetensors", code_of_bytes(fma, model, b"rubbish"), "malformed_safetensors")
        expect("updates that were kept", fma.updates(model), [])


def too_few(fma: DeveloperClient) -> None:
    """Fewer clients than the goal: the round waits for them and says so; its time does not run."""
    policy = {"goal": 3, "deadline_s": 60}
    with experiment(fma, num_clients=2, round_policy=policy) as (model, (client, _)):
        answer = client.join_once()
        expect("the client is told", getattr(answer, "reason", None), "not_started")
        waiting = fma.rounds(model)[0]
        expect("the round waits for", waiting["waits_for"], "clients to register: 2 of 3")
        expect("its deadline", waiting["deadline_at"], None)
        with Client(fma.url, model, credential_file=None) as third:
            third.register()
            expect("with a third one it begins", isinstance(client.join_once(), Joined), True)


def no_quorum(fma: DeveloperClient) -> None:
    """Too few answer: the round gets more time once, and then the experiment ends, as the policy says."""
    policy = {"goal": 2, "quorum": 2, "deadline_s": 1, "max_reopenings": 1}
    with experiment(fma, num_clients=2, round_policy=policy) as (model, clients):
        clients[0].push(WEIGHTS)
        round_ = finished_round(fma, model, 1)
        expect("the round is", round_["state"], "failed")
        expect("because", round_["failure"]["code"], "quorum_not_met")
        expect("times it was given more time", round_["num_reopenings"], 1)
        expect("the experiment is", fma.model(model)["state"], "ended")
        refusal = code_of(ExperimentEnded, clients[1].push, WEIGHTS)
        expect("an update after that", refusal, "experiment_ended")


def not_chosen(fma: DeveloperClient) -> None:
    """A client sends an update although it was not chosen: refused."""
    policy = {"goal": 1, "over_selection": 1}
    with experiment(fma, num_clients=2, round_policy=policy, selector={"name": "random"}) as (_, clients):
        (other,) = [client for client in clients if not isinstance(client.join_once(), Joined)]
        expect("its update", code_of(NotSelected, other.push, WEIGHTS), "not_selected")


CASES = (dropout, late, duplicate, malformed, too_few, no_quorum, not_chosen)


def main() -> None:
    options = parse_options()
    with developer_of(options) as fma:
        for case in CASES:
            print(f"\n{case.__doc__}")
            case(fma)
    print(f"\n{len(CASES)} cases, all as documented")


@contextmanager
def experiment(
    fma: DeveloperClient, *, num_clients: int, **configuration: Any
) -> Iterator[tuple[int, list[Client]]]:
    """A running experiment with this number of registered clients."""
    model = fma.create_model("edge case", allow_aggregation=False, **configuration)["id"]
    fma.set_initial_model(model, WEIGHTS)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Client(fma.url, model, credential_file=None)) for _ in range(num_clients)
        ]
        for client in clients:
            client.register()
        fma.start(model)  # with all of them there, and not with the first that came
        yield model, clients


def code_of(kind: type[Refused], call: Callable[..., object], *arguments: object) -> str:
    """The code of the error that a call raises."""
    try:
        return f"nothing; it was accepted: {call(*arguments)}"
    except kind as refused:
        return refused.code


def code_of_bytes(fma: DeveloperClient, model: int, body: bytes) -> str:
    """The code of the refusal of these bytes, which FMA's own clients never send."""
    registered = httpx.post(f"{fma.url}api/v1/models/{model}/register_client/").json()
    answer = httpx.post(
        f"{fma.url}api/v1/model_updates/?federated_model={model}",
        content=body,
        headers={"CLIENT-UUID": registered["uuid"], "Content-Type": "application/vnd.safetensors"},
    )
    return f"{answer.json()['code']}"


def expect(what: str, found: object, documented: object) -> None:
    if found != documented:
        raise SystemExit(f"error: {what}: {found!r}; documented is {documented!r}")
    print(f"  {what}: {found}", flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Show what the server does when clients misbehave.")
    add_server_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
