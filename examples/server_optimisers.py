"""Five clients have two digits each. Does a server optimiser help?

    python examples/server_optimisers.py

No client has seen what the others know: after some steps on its own data it has forgotten the rest, and the mean of
such updates is a small step in a doubtful direction. A server optimiser takes the mean for a gradient and makes a step
of its own from it. The same federation runs once for each. Prints a table and draws the accuracy after every round.

It starts a server of its own for that, unless it is told of another one with --url and --token.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curves import draw
from digits import deal_by_digit
from federation import add_server_options, developer_of, federate

from fma_api.cli.demo.recipe import Recipe

NUM_CLIENTS = 5
MILESTONES = (0.8, 0.9)


@dataclass(frozen=True)
class Tuned:
    """One way to train. step_size: of the clients' SGD. optimiser: for `create_model`; None for the plain mean."""

    step_size: float
    optimiser: dict[str, Any] | None


# Tuned on three other seeds, on a fifth of each share and never on the test images, for the best mean of the accuracies
# of 20 rounds. The candidates: the clients' step sizes 0.1, 0.2, 0.4, 0.8, and the server's learning rates 0.3, 1, 3
# for FedAvgM, 0.01, 0.03, 0.1 for FedAdagrad and 0.03, 0.1, 0.3 for FedAdam and FedYogi.
TUNED = {
    "FedAvg": Tuned(0.4, None),
    "FedAvgM": Tuned(0.4, {"name": "fedavgm", "learning_rate": 1.0, "momentum": 0.9}),
    "FedAdagrad": Tuned(0.2, {"name": "fedadagrad", "learning_rate": 0.03}),
    "FedAdam": Tuned(0.2, {"name": "fedadam", "learning_rate": 0.1}),
    "FedYogi": Tuned(0.2, {"name": "fedyogi", "learning_rate": 0.1}),
}


def main() -> None:
    options = parse_options()
    digits = deal_by_digit(NUM_CLIENTS, seed=options.seed)
    curves: dict[str, list[float]] = {}
    with developer_of(options) as developer:
        print(f"{len(TUNED)} optimisers, {options.rounds} rounds each", flush=True)
        for name, tuned in TUNED.items():
            curves[name] = federate(
                developer,
                name,
                digits,
                num_rounds=options.rounds,
                seed=options.seed,
                recipe=Recipe(epochs_per_round=2, step_size=tuned.step_size, momentum=0.0),
                strategy={"aggregator": "mean", "optimiser": tuned.optimiser},
            )
            print(f"{name:<11} {curves[name][-1]:.3f} after {options.rounds} rounds", flush=True)

    print(
        f"\n{'optimiser':<11}" + "".join(f"{f'rounds to {it:.0%}':>15}" for it in MILESTONES) + f"{'last':>8}"
    )
    for name, accuracies in curves.items():
        reached = "".join(f"{first_round(accuracies, it) or 'never':>15}" for it in MILESTONES)
        print(f"{name:<11}{reached}{accuracies[-1]:>8.3f}")
    picture = draw({"": curves}, title=f"{NUM_CLIENTS} clients with two digits each", to=options.out)
    print(f"\npicture: {picture}")


def first_round(accuracies: Sequence[float], wanted: float) -> int | None:
    return next((number for number, found in enumerate(accuracies, start=1) if found >= wanted), None)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare server optimisers where clients are very unlike.")
    add_server_options(parser)
    parser.add_argument("--rounds", type=int, default=20, help="of each federation (%(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same accuracies (%(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("server_optimisers.png"),
        help="where to write the picture (%(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
