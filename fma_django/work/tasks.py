"""The tasks of the django-q worker. Each takes ids only, calls one function, and may run twice without harm."""

import structlog

from fma_django.errors import StoreNotOurs
from fma_django.forwarders import forwarding
from fma_django.rounds import aggregation
from fma_django.work import sweep as sweeps

log = structlog.get_logger(__name__)


def aggregate(round_id: int) -> int | None:
    aggregate = aggregation.aggregate_round(round_id)
    return None if aggregate is None else aggregate.pk


def forward(federated_model_id: int) -> None:
    forwarding.forward(federated_model_id)


def sweep_rounds() -> None:
    sweeps.sweep_rounds()
    forwarding.sweep_forwarding()


def sweep_files() -> int:
    sweeps.sweep_memory()
    try:
        return sweeps.sweep_files()
    except StoreNotOurs as error:  # until an operator has said whose it is
        log.error("sweep_refused", reason=error.message)
        return 0
