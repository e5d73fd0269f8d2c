"""The training configuration for clients: any JSON, with schedules by round, and overrides by round, tag and client.

    {"learning_rate": {"$schedule": {"name": "cosine", "initial": 0.1, "num_rounds": 50}}, "local_epochs": 2}

The developer's clients may read any key. FMA's own clients and examples use these:

    learning_rate   the client's step size
    local_epochs    the number of passes over the client's examples in a round
    batch_size      the number of examples in a step
    mu              the weight of FedProx's proximal term; the strategy `fedprox` sets it by itself
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
