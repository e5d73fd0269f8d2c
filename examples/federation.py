"""A federation of clients in this process, which talk to a server over HTTP.

The developer chooses the aggregation when the model is created; the clients do the same in all cases.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fma_api.cli.demo import server
from fma_api.cli.demo.digits import Digits
from fma_api.cli.demo.network import Array, Weights, accuracy, first_weights
from fma_api.cli.demo.processes import Processes
from fma_api.cli.demo.recipe import Recipe, train
from fma_api.cli.problem import Problem
from fma_connect import Client, DeveloperClient
from fma_connect.exceptions import FMAConnectError

PATIENCE_S = 60.0
CALL_TIMEOUT_S = 15.0

Poison = Callable[[Weights, Weights], dict[str, Array]]


def federate(
    developer: DeveloperClient,
    name: str,
    digits: Digits,
    *,
    num_rounds: int,
    seed: int,
    recipe: Recipe,
    strategy: Mapping[str, Any],
    num_poisoned: int = 0,
    poison: Poison | None = None,
) -> list[float]:
    """The accuracy on the test set after each round.

    strategy: the arguments of `create_model` for the aggregation. poison: makes the updates of the first `num_poisoned`
    clients, from the weights that they pulled and from the honestly trained ones.
    """
    model = developer.create_model(
        name, requirement="require_x_updates", requirement_args=[len(digits.shares)], **strategy
    )["id"]
    developer.set_initial_model(model, first_weights(seed))
    accuracies = []
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Client(developer.url, model, credential_file=None)) for _ in digits.shares
        ]
        pulled = [client.pull() for client in clients]
        for round_number in range(1, num_rounds + 1):
            for number, client in enumerate(clients):
                given = pulled[number]
                if given is None:
                    raise Problem(_why_none_came(developer, model, round_number - 1))
                share = digits.shares[number]
                rng = np.random.default_rng([seed, number, round_number])
                weights, loss = train(
                    given.arrays, share, num_epochs=recipe.epochs_per_round, rng=rng, recipe=recipe
                )
                if poison is not None and number < num_poisoned:
                    weights = poison(given.arrays, weights)
                client.push(weights, num_examples=len(share), metrics={"loss": loss})
            # The last update starts the aggregation; the server answers when the round is published.
            pulled = [client.wait_for_next(timeout_s=PATIENCE_S) for client in clients]
            newest = pulled[0]
            if newest is None:
                raise Problem(_why_none_came(developer, model, round_number))
            accuracies.append(accuracy(newest.arrays, digits.test))
    return accuracies


def finished_round(developer: DeveloperClient, model: int, number: int) -> dict[str, Any]:
    """Wait until a round of the model is over, and return it."""
    ends_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_at:
        for round_ in developer.rounds(model, limit=2):  # the next one is open already
            if round_["number"] == number and round_["state"] in ("published", "failed", "cancelled"):
                return round_
        time.sleep(0.1)
    raise Problem(f"round {number} of model {model} did not end within {PATIENCE_S:g} seconds")


def add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="a running server; without it, one is started for this program only")
    parser.add_argument("--token", help="of a user of that server, as `fma user add NAME` prints it")


@contextmanager
def developer_of(options: argparse.Namespace) -> Iterator[DeveloperClient]:
    """A developer at the server of the options, or at a server in a temporary folder that stops with the block.

    Errors that the user can correct end the program with a sentence, Ctrl-C ends it without one.
    """
    try:
        if options.url is not None:
            if options.token is None:
                raise Problem("--url needs --token")
            with DeveloperClient(options.url, token=options.token, timeout_s=CALL_TIMEOUT_S) as developer:
                yield developer
            return
        with tempfile.TemporaryDirectory(prefix="fma-example-") as folder, Processes() as processes:
            print("starting a server …", flush=True)
            url = server.start(processes, Path(folder), port=0)
            server.wait_until_ready(processes, url)
            token = server.add_user(Path(folder)).token
            with DeveloperClient(url, token=token, timeout_s=CALL_TIMEOUT_S) as developer:
                yield developer
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (Problem, FMAConnectError) as error:
        raise SystemExit(f"error: {error}") from error


def _why_none_came(developer: DeveloperClient, model: int, round_number: int) -> str:
    for round_ in developer.rounds(model):
        if round_["number"] == round_number and round_["failure"]:
            return f"round {round_number} of model {model} failed: {round_['failure']['detail']}"
    return f"no aggregate of round {round_number} of model {model} came within {PATIENCE_S:g} seconds"
