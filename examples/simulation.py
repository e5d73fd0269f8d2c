"""Try an experiment before it is hosted: a thousand simulated clients, no server, one process.

    python examples/simulation.py

The 1797 handwritten digits of scikit-learn are dealt out unevenly: most clients have one or two images, of one or two
digits. In each round 68 of them are asked, a third more than are needed, for some are slow and some never answer.
Prints a table of the rounds, and draws how the model becomes better. The dictionary CONFIGURATION is what a real server
would be sent: `developer.create_model("digits", **CONFIGURATION)`.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fma_api.cli.demo.digits import Examples, hold_out
from fma_api.cli.demo.network import Weights, accuracy, first_weights
from fma_api.cli.demo.recipe import Recipe, train
from fma_core import simulate
from fma_core.simulation import SimulatedClient, Trained, progress_bar

CONFIGURATION: dict[str, Any] = {
    "aggregator": "mean",
    "optimiser": {"name": "fedavgm", "momentum": 0.5},
    "selector": {"name": "random"},
    "eligibility": [{"name": "tags", "none_of": ["retired"]}],
    # Try "next_round" instead of "refuse": late updates then count in a later round.
    "round_policy": {
        "goal": 50,
        "over_selection": 1.35,
        "deadline_s": 120,
        "quorum": 30,
        "late_updates": "refuse",
    },
    "client_config": {
        "learning_rate": {"$schedule": {"name": "cosine", "initial": 0.05, "final": 0.01, "num_rounds": 40}},
        "local_epochs": 2,
    },
    # Old phones train less, so that they are in time.
    "client_config_overrides": [{"tags": ["old"], "set": {"local_epochs": 1}}],
}
CONCENTRATION = 0.5  # of the Dirichlet distribution: small is skewed
DROPOUT = 0.05
SECONDS_PER_EPOCH = 8.0


def main() -> None:
    options = parse_options()
    test, rest = hold_out(np.random.default_rng(options.seed))
    shares = deal(rest, options.clients, np.random.default_rng(options.seed))
    clients = [make_client(number, share, options.seed) for number, share in enumerate(shares)]

    found = simulate(
        CONFIGURATION,
        clients,
        initial=first_weights(options.seed),
        rounds=options.rounds,
        seed=options.seed,
        evaluate=lambda weights: {"accuracy": accuracy(weights, test)},
        progress=progress_bar(),
    )

    if found.end_reason == "stalled":
        raise SystemExit(f"it stalled, waiting for {found.waits_for}")
    print(found.table())
    print(
        f"\n{len(clients)} clients, {found.seconds / 60:.0f} simulated minutes, ended by: {found.end_reason}"
    )
    print(f"accuracy on images that no client has: {found.rounds[-1].validation['accuracy']:.3f}")
    print(f"picture: {found.plot(options.out, metrics=['accuracy', 'loss'])}")


def make_client(number: int, share: Examples, seed: int) -> SimulatedClient:
    """A thousand clients: one in twenty never answers, one in four is an old phone, which takes three times as long."""
    is_old = number % 4 == 0
    tags = ["old"] if is_old else []
    if number % 20 == 7:
        tags.append("retired")
    slowness = 3.0 if is_old else 1.0
    return SimulatedClient(
        f"client-{number:04}",
        partial(train_locally, share, number, slowness, seed),
        tags=tags,
        facts={"num_examples": len(share)},
    )


def train_locally(
    share: Examples,
    number: int,
    slowness: float,
    seed: int,
    weights: Weights,
    config: Mapping[str, Any],
    round_number: int,
) -> Trained | None:
    # The random numbers follow from the client and the round, not from the order of training.
    rng = np.random.default_rng([seed, number, round_number])
    if rng.random() < DROPOUT:
        return None
    recipe = Recipe(step_size=config["learning_rate"], batch_size=8)
    trained, loss = train(weights, share, num_epochs=config["local_epochs"], rng=rng, recipe=recipe)
    seconds = slowness * SECONDS_PER_EPOCH * config["local_epochs"] * rng.lognormal(sigma=0.5)
    return Trained(trained, num_examples=len(share), metrics={"loss": loss}, seconds=seconds)


def deal(everything: Examples, num_clients: int, rng: np.random.Generator) -> list[Examples]:
    """Deal one image to each client first, then the rest; each image goes to a client that prefers its digit.

    What a client likes is drawn from a Dirichlet distribution. Source: Hsu, Qi, Brown 2019, arXiv:1909.06335.
    """
    likes = rng.dirichlet(np.full(10, CONCENTRATION), num_clients)
    order = rng.permutation(len(everything))
    owners: list[list[int]] = [[int(image)] for image in order[:num_clients]]
    for image in order[num_clients:]:
        wanted: npt.NDArray[np.float64] = likes[:, everything.labels[image]]
        owners[rng.choice(num_clients, p=wanted / wanted.sum())].append(int(image))
    return [everything.take(np.array(images)) for images in owners]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train on the clients of one process.")
    parser.add_argument("--clients", type=int, default=1000, help="at most 1437 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=40, help="how many (%(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same picture (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("simulation.png"), help="where to write the picture (%(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
