"""What clients are told of how to train: any JSON, with schedules by round, and overrides by round, tag and client.

    {"learning_rate": {"$schedule": {"name": "cosine", "initial": 0.1, "num_rounds": 50}}, "local_epochs": 2}

A key may be anything that the developer's clients read. These are what our own clients and examples call things:

    learning_rate   the client's step size
    local_epochs    how often a client goes through its examples in a round
    batch_size      examples in a step
    mu              the weight of FedProx's proximal term; the strategy `fedprox` says it by itself
"""

from fma_core.client_config.check import (
    MAX_CONFIG_BYTES,
    MAX_DEPTH,
    MAX_OVERRIDES,
    MAX_OVERRIDES_BYTES,
    check,
)
from fma_core.client_config.resolve import resolve
from fma_core.client_config.schedules import Schedule, schedules

__all__ = [
    "MAX_CONFIG_BYTES",
    "MAX_DEPTH",
    "MAX_OVERRIDES",
    "MAX_OVERRIDES_BYTES",
    "Schedule",
    "check",
    "resolve",
    "schedules",
]
