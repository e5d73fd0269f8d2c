"""A developer: create a model, watch its rounds, publish the last result, download it.

    fma user add anna --out anna.json
    python examples/developer.py --user anna.json --inputs 2 --clients 2 --rounds 3

prints the model's id, for the clients (see edge_client.py), and then waits for them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from fma_connect import DeveloperClient


def main() -> None:
    options = parse_options()
    token = json.loads(options.user.read_text())["token"]
    with DeveloperClient(options.url, token=token) as fma:
        model = fma.create_model(
            "linear",
            aggregator="mean",  # weighted by each client's number of examples
            requirement="require_x_updates",
            requirement_args=[options.clients],
        )
        start = {"slope": np.zeros(options.inputs, np.float32), "offset": np.zeros((), np.float32)}
        fma.set_initial_model(model["id"], start)
        print(f"model {model['id']} waits for {options.clients} clients", flush=True)

        for round_ in fma.watch(model["id"], after_round=0, timeout_s=options.patience):
            if round_["failure"]:
                raise SystemExit(f"round {round_['number']} failed: {round_['failure']['detail']}")
            print(f"round {round_['number']} {round_['state']}: {round_['num_updates']} updates", flush=True)
            if round_["number"] == options.rounds:
                break
        else:
            raise SystemExit(f"fewer than {options.rounds} rounds in {options.patience} seconds")

        artifact = fma.publish(round_["aggregate"], "1.1.0")
        written = fma.download(artifact=artifact["id"], to=options.to)
    for name, array in sorted(load_file(written).items()):
        print(f"{name} = {np.round(array, 3).tolist()}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Create a model, watch it being trained, publish it.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server")
    parser.add_argument("--user", type=Path, required=True, help="what `fma user add NAME` printed")
    parser.add_argument("--inputs", type=int, required=True, help="how many inputs the model has")
    parser.add_argument("--clients", type=int, default=2, help="how many clients make a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for the clients")
    parser.add_argument("--to", type=Path, default=Path("model.safetensors"), help="where to write the model")
    return parser.parse_args()


if __name__ == "__main__":
    main()
