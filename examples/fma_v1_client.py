"""A script for Capital One's Federated Model Aggregation, unchanged but for the URL.

    python examples/fma_v1_client.py 1 http://127.0.0.1:8000/

It sends JSON, polls, and knows nothing of what is new. With their `fma_connect` installed instead of ours it does the
same against the same server.
"""

import sys
import time

from fma_connect import WebClient


def main(federated_model_id: int, url: str) -> None:
    client = WebClient(federated_model_id=federated_model_id, url=url)
    print("registered as", client.register())

    model = client.check_for_latest_model()
    weights = model["values"] if model else [[0.0, 0.0], [0.0]]
    for _ in range(3):
        weights = train(weights)
        client.send_update(data=weights, base_aggregate=model["aggregate"] if model else None)
        model = None
        while model is None:
            time.sleep(0.2)
            model = client.check_for_latest_model()
        weights = model["values"]
        client.send_val_results({"size": sum(map(abs, weights[0]))}, model["aggregate"])
        print("aggregate", model["aggregate"], "is", weights)


def train(layers: list[list[float]]) -> list[list[float]]:
    """A toy training: every weight moves half of the way to one."""
    return [[value + (1 - value) / 2 for value in layer] for layer in layers]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8000/")
