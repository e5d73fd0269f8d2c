"""Two of ten clients poison the training. Which aggregation rules hold?

    python examples/poisoned_clients.py

Ten clients, each with a random tenth of the images, train a network that reads handwritten digits. Two of them send
the opposite of what they learnt, five times as large. The same federation runs once for each rule without the attack
and once under it. Prints a table and draws the accuracy after every round.

It starts a server of its own for that, unless it is told of another one with --url and --token.
"""

import argparse
from pathlib import Path
from typing import Any

from curves import draw
from digits import deal_alike, deal_by_digit
from federation import add_server_options, developer_of, federate

from fma_api.cli.demo.network import Array, Weights
from fma_api.cli.demo.recipe import Recipe

NUM_CLIENTS = 10
NUM_POISONED = 2
BOOST = 5.0
RECIPE = Recipe(epochs_per_round=2)

# The arguments of `create_model`. f is the number of attackers that a rule has to tolerate, and beta the share that is
# cut off at each end; in practice both must be chosen without knowing the number of attackers.
RULES: dict[str, dict[str, Any]] = {
    "mean": {"aggregator": "mean"},
    "median": {"aggregator": "median"},
    "trimmed_mean": {"aggregator": "trimmed_mean", "aggregator_params": {"beta": 0.2}},
    "multi_krum": {"aggregator": "multi_krum", "aggregator_params": {"f": 2}},
    "geometric_median": {"aggregator": "geometric_median"},
    "centered_clipping": {
        "aggregator": "centered_clipping",
        "aggregator_params": {"tau": 1.0, "iterations": 3},
    },
    "nnm + median": {"stages": [{"name": "nnm", "f": 2}], "aggregator": "median"},
}


def poison(given: Weights, trained: Weights) -> dict[str, Array]:
    """The opposite of the honest change, BOOST times as large."""
    return {name: given[name] - BOOST * (trained[name] - given[name]) for name in given}


def main() -> None:
    options = parse_options()
    deal = deal_by_digit if options.skewed else deal_alike
    digits = deal(NUM_CLIENTS, seed=options.seed)
    situations = {
        "without an attack": 0,
        f"{NUM_POISONED} of {NUM_CLIENTS} clients poisoned": NUM_POISONED,
    }
    accuracies: dict[str, dict[str, list[float]]] = {situation: {} for situation in situations}
    with developer_of(options) as developer:
        print(
            f"{len(RULES)} rules, {options.rounds} rounds without an attack and {options.rounds} under it",
            flush=True,
        )
        for rule, strategy in RULES.items():
            for situation, num_poisoned in situations.items():
                accuracies[situation][rule] = federate(
                    developer,
                    f"{rule}, {situation}",
                    digits,
                    num_rounds=options.rounds,
                    seed=options.seed,
                    recipe=RECIPE,
                    strategy=strategy,
                    num_poisoned=num_poisoned,
                    poison=poison,
                )
            before, after = (curves[rule][-1] for curves in accuracies.values())
            print(f"{rule:<18} {before:.3f} without an attack, {after:.3f} under it", flush=True)

    clean, attacked = accuracies.values()
    print(f"\n{'rule':<18} {'accuracy':>9} {'under attack':>13}")
    for rule in RULES:
        print(f"{rule:<18} {clean[rule][-1]:>9.3f} {attacked[rule][-1]:>13.3f}")
    title = f"{NUM_POISONED} of {NUM_CLIENTS} clients send the opposite of what they learnt, {BOOST:g} times as large"
    print(f"\npicture: {draw(accuracies, title=title, to=options.out)}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Poison a federation, and see which aggregation rules hold.")
    add_server_options(parser)
    parser.add_argument(
        "--skewed",
        action="store_true",
        help="clients with one or two digits each, who are much harder to tell from attackers",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each federation (%(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same accuracies (%(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("poisoned_clients.png"),
        help="where to write the picture (%(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
