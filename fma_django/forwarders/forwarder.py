"""The seam of forwarders: numbers of published rounds, under names that every place takes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from fma_django.models import FederatedModel, Round
from fma_django.record.queries.metrics import MergedMetric, merged_metrics

FORWARDED = ("mean", "min", "max")
LONGEST_NAME = 200


@dataclass(frozen=True)
class Number:
    """name: `training/loss` for the mean, `training/loss/min`, … at: seconds since 1970, when the round was closed."""

    name: str
    value: float
    round: int
    at: float


class Forwarder(Protocol):
    target: ClassVar[str]

    def begin(self, federated_model: FederatedModel) -> str:
        """A new run for this model; what it is called there."""

    def send(self, run: str, numbers: Sequence[Number]) -> None:
        """The same numbers again do no harm."""

    def end(self, run: str) -> None:
        """Nothing more will be sent."""


def numbers_of_rounds(rounds: Sequence[Round], *, after: int) -> list[Number]:
    """Training metrics of the rounds after this one, and of all of them what validation found."""
    closed = {
        found.number: 0.0 if found.closed_on is None else found.closed_on.timestamp() for found in rounds
    }
    return [
        number
        for found in merged_metrics(rounds)
        if found.round > after or found.source != "training"
        for number in _numbers(found, closed[found.round])
    ]


def _numbers(found: MergedMetric, at: float) -> Iterator[Number]:
    # Clients choose the names of metrics. A slash would make a folder of one.
    plain = re.sub(r"[^A-Za-z0-9_. -]", "_", found.metric).strip(" .")[:LONGEST_NAME] or "_"
    for statistic in FORWARDED:
        name = f"{found.source}/{plain}" if statistic == "mean" else f"{found.source}/{plain}/{statistic}"
        yield Number(name, found.statistics[statistic], found.round, at)
