"""The tasks of the django-q worker. Each takes ids only, calls one function, and may run twice without harm."""

from fma_django.forwarders import forwarding
from fma_django.rounds import aggregation
from fma_django.work import sweep as sweeps


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
    return sweeps.sweep_files()
