"""Rounds of Flower's server, whose clients are processes that send back what they get; prints their seconds as JSON.

    python flower_rounds.py PORT CLIENTS PARAMETERS ARRAYS ROUNDS

By `start_server` and `start_client`: one connection for each client, over which the server pushes. What `flwr run`
starts (a SuperLink, a SuperNode for each client, and a process for each message) is slower.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from itertools import pairwise

import numpy as np
from flwr.client import NumPyClient
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerConfig, start_server
from flwr.server.strategy import FedAvg


class Echo(NumPyClient):
    def fit(self, parameters, config):
        return parameters, 10, {}


class Timed(FedAvg):
    """The times at which rounds had their aggregate."""

    def __init__(self, **more) -> None:
        super().__init__(**more)
        self.ended: list[float] = []

    def aggregate_fit(self, server_round, results, failures):
        if failures:
            raise failures[0]
        aggregated = super().aggregate_fit(server_round, results, failures)
        self.ended.append(time.perf_counter())
        return aggregated


def run_client(address: str) -> None:
    from flwr.compat.client.app import start_client

    start_client(server_address=address, client=Echo().to_client(), insecure=True)


def main(port: int, clients: int, parameters: int, arrays: int, rounds: int) -> None:
    address = f"127.0.0.1:{port}"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=run_client, args=(address,), daemon=True) for _ in range(clients)]
    for process in processes:
        process.start()
    values = [np.zeros(parameters // arrays, np.float32) for _ in range(arrays)]
    strategy = Timed(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters(values),
    )
    start_server(server_address=address, config=ServerConfig(num_rounds=rounds + 1), strategy=strategy)
    print(json.dumps([later - earlier for earlier, later in pairwise(strategy.ended)]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
