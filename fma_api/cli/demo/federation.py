"""The experiment: a model is created, clients start, rounds are watched until the last one, the result is published.

Everything goes through the API, by the client library: this is what a developer does from a notebook.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fma_api.cli.demo import server
from fma_api.cli.demo.digits import Digits
from fma_api.cli.demo.network import accuracy, first_weights
from fma_api.cli.demo.processes import Processes
from fma_api.cli.problem import Problem
from fma_connect import DeveloperClient
from fma_connect.exceptions import ConnectionFailed
from fma_core.arrays.codecs.safetensors import read_file

LOOK_EVERY_S = 0.2
PATIENCE_S = 60.0
VERSION = "1.1.0"  # the first weights are 1.0.0


@dataclass(frozen=True)
class Plan:
    num_clients: int
    num_rounds: int
    seed: int


@dataclass(frozen=True)
class RoundResult:
    """accuracy: of the round's aggregate, on the test set. seconds: from its opening to its end."""

    number: int
    num_answered: int
    aggregate: int
    accuracy: float
    seconds: float


def create_model(developer: DeveloperClient, plan: Plan) -> int:
    """A model whose rounds close when every client of the plan has answered, with the network's first weights."""
    model = developer.create_model(
        "Handwritten digits",
        aggregator="mean",
        requirement="require_x_updates",
        requirement_args=[plan.num_clients],
    )
    model_id: int = model["id"]
    developer.set_initial_model(model_id, first_weights(plan.seed))
    return model_id


def start_clients(
    processes: Processes, plan: Plan, digits: Digits, *, url: str, model: int, folder: Path
) -> None:
    """Start one process for each share, which is all that it is given of the data."""
    folder.mkdir()
    for number, share in enumerate(digits.shares, start=1):
        share_file = folder / f"client-{number}.npz"
        share.save(share_file)
        arguments: dict[str, object] = {
            "url": url,
            "model": model,
            "share": share_file,
            "credential": folder / f"client-{number}.json",
            "number": number,
            "rounds": plan.num_rounds,
            "seed": plan.seed,
            "patience": PATIENCE_S,
        }
        processes.start(
            f"client {number}",
            ["fma_api.cli.demo.client", *(f"--{name}={value}" for name, value in arguments.items())],
            env=server.environment(),
            log=folder / f"client-{number}.log",
            may_end=True,
        )


def watch(
    developer: DeveloperClient,
    processes: Processes,
    plan: Plan,
    digits: Digits,
    *,
    model: int,
    folder: Path,
    on_answers: Callable[[int, int], None],
    on_published: Callable[[RoundResult], None],
) -> list[RoundResult]:
    """The results of all rounds, measured as they come. Raises Problem as soon as they cannot all come any more.

    on_answers: called with the number of the open round and how many clients have answered in it.
    """
    results: list[RoundResult] = []
    moved_at = time.monotonic()
    answered = (0, 0)
    while len(results) < plan.num_rounds:
        processes.check()
        for round_ in reversed(_rounds(developer, processes, model)):
            if round_["number"] > plan.num_rounds:  # open since the last one ended, and nobody will answer
                break
            if round_["state"] in ("failed", "cancelled"):
                raise Problem(_why_failed(round_))
            if round_["state"] == "published" and round_["number"] == len(results) + 1:
                results.append(_measured(developer, round_, digits, folder))
                on_published(results[-1])
            elif round_["number"] == len(results) + 1 and answered != (
                round_["number"],
                _num_answered(round_),
            ):
                answered = (round_["number"], _num_answered(round_))
                moved_at = time.monotonic()
                on_answers(*answered)
        if time.monotonic() - moved_at > PATIENCE_S:
            raise Problem(
                f"nothing happened for {PATIENCE_S:g} seconds: round {answered[0]} has the answers of "
                f"{answered[1]} of {plan.num_clients} clients"
            )
        time.sleep(LOOK_EVERY_S)
    return results


def publish(developer: DeveloperClient, last: RoundResult, *, folder: Path) -> Path:
    """Publish the last round's aggregate, and fetch it as anybody would who wants to use it."""
    artifact = developer.publish(last.aggregate, VERSION)
    return developer.download(artifact=artifact["id"], to=folder / f"digits-{VERSION}.safetensors")


def accuracy_of(file: Path, digits: Digits) -> float:
    """The share of the test set that the weights in a file classify right."""
    return accuracy(read_file(file), digits.test)


def _rounds(developer: DeveloperClient, processes: Processes, model: int) -> list[dict[str, Any]]:
    try:
        return developer.rounds(model)
    except ConnectionFailed:
        processes.check()  # better to say that the server ended than that it does not answer
        raise


def _measured(
    developer: DeveloperClient, round_: dict[str, Any], digits: Digits, folder: Path
) -> RoundResult:
    file = developer.download(aggregate=round_["aggregate"], to=folder / "newest-aggregate.safetensors")
    measured = accuracy_of(file, digits)
    file.unlink()
    return RoundResult(
        number=round_["number"],
        num_answered=_num_answered(round_),
        aggregate=round_["aggregate"],
        accuracy=measured,
        seconds=sum(round_["seconds"].values()),
    )


def _num_answered(round_: dict[str, Any]) -> int:
    return len(round_["clients"])


def _why_failed(round_: dict[str, Any]) -> str:
    failure = round_["failure"] or {"code": "no reason", "detail": "none was given"}
    return f"round {round_['number']} {round_['state']}: {failure['code']}: {failure['detail']}"
