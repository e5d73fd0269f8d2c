"""Rate limits of updates and bytes, for each client and each model, counted before a body travels.

A rate that is not set costs nothing.
"""

from math import ceil
from uuid import UUID

from fma_django import conf, rates
from fma_django.errors import RateExceeded
from fma_django.rates.cost import Cost


def count_update(federated_model_id: int, client_id: UUID, size_bytes: int) -> None:
    """Count one update that is about to travel. Raises RateExceeded, and counts nothing then.

    Only of a client that is registered with the model: nobody else may use up what a model takes.
    """
    _ask([cost for _, cost in _costs(federated_model_id, client_id, 1, size_bytes)])


def ask_for_update(federated_model_id: int, client_id: UUID, size_bytes: int) -> None:
    """Ask whether one update may travel now; nothing is counted. Raises RateExceeded."""
    _ask([cost.only_asked() for _, cost in _costs(federated_model_id, client_id, 1, size_bytes)])


def count_begun(federated_model_id: int, client_id: UUID, size_bytes: int) -> None:
    """Count one update, and ask whether its bytes may come; `count_arrived` counts these when they do."""
    _ask(
        [
            cost.only_asked() if is_bytes else cost
            for is_bytes, cost in _costs(federated_model_id, client_id, 1, size_bytes)
        ]
    )


def ask_for_bytes(federated_model_id: int, client_id: UUID, size_bytes: int) -> None:
    """Ask whether so many bytes of an update that was counted may come now. Raises RateExceeded."""
    costs = _costs(federated_model_id, client_id, 0, size_bytes)
    _ask([cost.only_asked() for is_bytes, cost in costs if is_bytes])


def count_arrived(federated_model_id: int, client_id: UUID, size_bytes: int) -> None:
    """Count bytes that have come, of use or not; more than may come is owed."""
    costs = _costs(federated_model_id, client_id, 0, size_bytes)
    _ask([cost.in_any_case() for is_bytes, cost in costs if is_bytes])


def _costs(
    federated_model_id: int, client_id: UUID, num_updates: int, size_bytes: int
) -> list[tuple[bool, Cost]]:
    """The cost for each limit that is set, and whether the limit counts bytes."""
    settings = conf.current()
    limits = (
        ("FMA_CLIENT_UPDATE_RATE", settings.client_update_rate, client_id, num_updates),
        ("FMA_CLIENT_BYTE_RATE", settings.client_byte_rate, client_id, size_bytes),
        ("FMA_MODEL_UPDATE_RATE", settings.model_update_rate, federated_model_id, num_updates),
        ("FMA_MODEL_BYTE_RATE", settings.model_byte_rate, federated_model_id, size_bytes),
    )
    return [
        ("BYTE" in setting, Cost(f"{setting}:{of}", number * rate[1] / rate[0], rate[1]))
        for setting, rate, of, number in limits
        if rate is not None
    ]


def _ask(costs: list[Cost]) -> None:
    if not costs:
        return
    wait_s, key = rates.take(costs)
    if wait_s > 0:
        setting = key.partition(":")[0]
        whose = "this client has sent" if "CLIENT" in setting else "the clients of this model have sent"
        raise RateExceeded(
            f"{whose} as much as may be sent in a time ({setting}); the next is taken in {ceil(wait_s)} s",
            retry_after_s=wait_s,
        )
