"""Clients that train a torch network on handwritten digits, each on its own share.

    python examples/torch_client.py

`take_part` is what to copy: it asks for a turn, trains as the model's owner says (learning rate and local epochs come
with the round), and sends the weights, until the experiment has ended. Here each client is a thread of this program; a
device runs one of them, with a credential_file. torch is not among fma's dependencies: `pip install torch`.

It starts a server of its own for that, unless it is told of another one with --url and --token.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from digits import deal_alike
from federation import add_server_options, developer_of, finished_round

from fma_api.cli.demo.digits import Examples
from fma_connect import Client, Pulled
from fma_connect.adapters import torch_state_dict

BATCH_SIZE = 32


def main() -> None:
    options = parse_options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)  # each client is a thread
    digits = deal_alike(options.clients, seed=options.seed)
    cooling = {"name": "cosine", "initial": 0.2, "num_rounds": max(options.rounds, 2), "final": 0.05}
    with developer_of(options) as fma:
        model = fma.create_model(
            "digits with torch",
            round_policy={"goal": options.clients, "num_rounds": options.rounds},
            client_config={"local_epochs": 3, "learning_rate": {"$schedule": cooling}},
        )["id"]
        fma.set_initial_model(model, torch_state_dict.to_arrays(network().state_dict()))
        with ThreadPoolExecutor(options.clients) as pool:
            clients = pool.map(partial(take_part, fma.url, model), digits.shares)
            with Client(fma.url, model, credential_file=None) as judge:
                for number in range(1, options.rounds + 1):
                    finished_round(fma, model, number)
                    newest = judge.pull()
                    assert newest is not None
                    print(f"round {number}: accuracy {accuracy(newest, digits.test):.3f}", flush=True)
            print("rounds of each client:", list(clients))


def take_part(url: str, model: int, share: Examples) -> int:
    """Train in every round that this client may join, and return the number of rounds."""
    images, labels = torch.from_numpy(share.images), torch.from_numpy(share.labels)
    num_rounds = 0
    with Client(url, model, credential_file=None) as client:
        while (joined := client.join()) is not None:
            pulled = client.pull()
            assert pulled is not None
            learner = network()
            learner.load_state_dict(torch_state_dict.from_arrays(pulled.arrays, like=learner.state_dict()))
            loss = train(
                learner,
                images,
                labels,
                epochs=joined.client_config["local_epochs"],
                learning_rate=joined.client_config["learning_rate"],
            )
            arrays = torch_state_dict.to_arrays(learner.state_dict())
            client.push(arrays, num_examples=len(share), metrics={"loss": loss})
            num_rounds += 1
    return num_rounds


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))


def train(
    learner: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, *, epochs: int, learning_rate: float
) -> float:
    """Train by minibatch SGD, and return the loss of the last batch."""
    optimiser = torch.optim.SGD(learner.parameters(), lr=learning_rate, momentum=0.9)
    loss = torch.zeros(())
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(BATCH_SIZE):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(learner(images[batch]), labels[batch])
            loss.backward()
            optimiser.step()
    return float(loss)


def accuracy(pulled: Pulled, test: Examples) -> float:
    judged = network()
    judged.load_state_dict(torch_state_dict.from_arrays(pulled.arrays, like=judged.state_dict()))
    with torch.no_grad():
        guesses = judged(torch.from_numpy(test.images)).argmax(dim=1)
    return float((guesses.numpy() == test.labels).mean())


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a torch network on digits that clients keep.")
    add_server_options(parser)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
