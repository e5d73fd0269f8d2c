"""Choose the clients of each round, and list the reasons why the others sit out.

    python examples/client_selection.py
    python examples/client_selection.py --selector '{"name": "round_robin"}' --eligibility '[]'

Eight clients train a network that reads handwritten digits, three of them in each round: drawn at random from those
that sat out the round before. Each client asks the server whether it may take part; whoever was chosen trains. Prints
who it was, and compares what the clients were told with what the API lists of the round.

It starts a server of its own for that, unless it is told of another one with --url and --token.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from digits import deal_alike
from federation import add_server_options, developer_of, finished_round

from fma_api.cli.demo.digits import Examples
from fma_api.cli.demo.network import accuracy, first_weights
from fma_api.cli.demo.recipe import train
from fma_connect import Client, Joined, NotJoined

NUM_CLIENTS = 8
NUM_CHOSEN = 3
SYMBOLS = {"": "●", "not_chosen": "·", "turn_too_recent": "-"}

Answers = Mapping[str, Joined | NotJoined]


def main() -> None:
    options = parse_options()
    digits = deal_alike(NUM_CLIENTS, seed=options.seed)
    with developer_of(options) as fma, ExitStack() as stack:
        model = fma.create_model(
            "selection",
            round_policy={"goal": NUM_CHOSEN, "over_selection": 1.0, "num_rounds": options.rounds},
            selector=options.selector,
            eligibility=options.eligibility,
            seed=options.seed,
            client_config={"local_epochs": 2},
            # Not started yet: otherwise the first round would begin with the first three clients that register.
            allow_aggregation=False,
        )["id"]
        fma.set_initial_model(model, first_weights(options.seed))
        clients = [
            stack.enter_context(Client(fma.url, model, credential_file=None)) for _ in range(NUM_CLIENTS)
        ]
        names = [client.register() or "" for client in clients]
        fma.start(model)

        print("round  accuracy  clients 1 to", NUM_CLIENTS)
        num_compared = 0
        for number in range(1, options.rounds + 1):
            answers = {name: client.join_once() for name, client in zip(names, clients, strict=True)}
            for client, name, share in zip(clients, names, digits.shares, strict=True):
                answer = answers[name]
                if isinstance(answer, Joined):
                    take_part(client, answer, share, seed=options.seed)
            finished_round(fma, model, number)
            newest = clients[0].pull()
            assert newest is not None
            shown = " ".join(SYMBOLS.get(reason_of(answers[name]), "?") for name in names)
            print(f"{number:>5}  {accuracy(newest.arrays, digits.test):>8.3f}  {shown}", flush=True)
            num_compared += compare(answers, fma.selection(model, number)["clients"])

        print("● took part   · not drawn   - had its turn too recently   ? another reason")
        print(f"The API lists the same for {num_compared} of {num_compared} answers.")
        print(f"The experiment is {fma.model(model)['state']}: {clients[0].join_once()}")


def take_part(client: Client, joined: Joined, share: Examples, *, seed: int) -> None:
    pulled = client.pull()
    assert pulled is not None
    rng = np.random.default_rng([seed, joined.round])
    epochs = joined.client_config["local_epochs"]
    weights, loss = train(pulled.arrays, share, num_epochs=epochs, rng=rng)
    client.push(weights, num_examples=len(share), metrics={"loss": loss})


def compare(answers: Answers, rows: Sequence[Mapping[str, Any]]) -> int:
    """The number of answers; the program ends with an error if the API lists anything else."""
    told = {name: reason_of(answer) for name, answer in answers.items()}
    listed = {row["client"]: row["reason"] for row in rows}
    took_part = {row["client"] for row in rows if row["is_chosen"] and row["answered_on"] is not None}
    if told != listed or took_part != {name for name, reason in told.items() if not reason}:
        raise SystemExit(f"error: the clients were told {told}, and the API lists {rows}")
    return len(told)


def reason_of(answer: Joined | NotJoined) -> str:
    return "" if isinstance(answer, Joined) else answer.reason


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Show which clients take part in which round.")
    add_server_options(parser)
    parser.add_argument(
        "--selector",
        type=json.loads,
        default={"name": "random"},
        help="how they are chosen, as JSON (random)",
    )
    parser.add_argument(
        "--eligibility",
        type=json.loads,
        default=[{"name": "min_rounds_between_turns", "rounds": 1}],
        help="who may be chosen, as JSON (who sat out the round before)",
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="of the data and of the choice (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
