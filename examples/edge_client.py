"""An edge device: it trains a linear model on local measurements, round after round.

    python examples/edge_client.py --model 1 --data measurements.csv

Each line of the CSV file is one example: the inputs, then the value to predict. Copy this file and put your own model
into `train` and `mean_squared_error`; the rest may stay as it is. It can be stopped and started again at any time: the
credential file makes it the same client again.
"""

import argparse
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fma_connect import Client

Array = npt.NDArray[np.float32]
STEPS_PER_ROUND = 50
STEP_SIZE = 0.1


def main() -> None:
    options = parse_options()
    table = np.loadtxt(options.data, delimiter=",", dtype=np.float32, ndmin=2)
    inputs, targets = table[:, :-1], table[:, -1]
    with Client(options.url, options.model, credential_file=options.credential) as client:
        pulled = client.pull() or client.wait_for_next(timeout_s=options.patience)
        for _ in range(options.rounds):
            if pulled is None:
                raise SystemExit(f"no newer model came within {options.patience} seconds")
            weights = train(pulled.copies(), inputs, targets)
            error = mean_squared_error(weights, inputs, targets)
            client.push(weights, num_examples=len(targets), metrics={"mse": error})
            pulled = client.wait_for_next(timeout_s=options.patience)
            if pulled is not None:
                together = mean_squared_error(pulled.arrays, inputs, targets)
                client.report_scores({"mse": together})
                print(f"aggregate {pulled.base_aggregate}: mse {together:.4f}, alone {error:.4f}", flush=True)


def train(weights: dict[str, Array], inputs: Array, targets: Array) -> dict[str, Array]:
    """Train by gradient descent on the mean squared error, from the weights of the aggregate."""
    for _ in range(STEPS_PER_ROUND):
        residuals = predict(weights, inputs) - targets
        weights["slope"] -= STEP_SIZE * (inputs.T @ residuals) / len(targets)
        weights["offset"] -= STEP_SIZE * residuals.mean()
    return weights


def mean_squared_error(weights: Mapping[str, Array], inputs: Array, targets: Array) -> float:
    return float(np.mean((predict(weights, inputs) - targets) ** 2))


def predict(weights: Mapping[str, Array], inputs: Array) -> Array:
    return inputs @ weights["slope"] + weights["offset"]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a linear model on data that stays here.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server")
    parser.add_argument("--model", type=int, required=True, help="the model's id")
    parser.add_argument("--data", required=True, help="a CSV file: inputs, then the value to predict")
    parser.add_argument(
        "--credential", default="credential.json", help="who this client is; one file per client"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for the others")
    return parser.parse_args()


if __name__ == "__main__":
    main()
