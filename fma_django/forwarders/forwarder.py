"""The seam of forwarders: numbers of published rounds, under names that every place takes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Protocol

from fma_django.models import FederatedModel, Round
from fma_django.record.queries.metrics import MergedMetric, merged_metrics

FORWARDED = ("mean", "min", "max")
LONGEST_NAME = 200


@dataclass(frozen=True)
class Number:
    """A value of a metric in a round.

    name: `training/loss` for the mean, `training/loss/min`, … at: seconds since 1970, when the round was closed.
    """

    name: str
    value: float
    round: int
    at: float


class Forwarder(Protocol):
    target: ClassVar[str]

    def begin(self, federated_model: FederatedModel) -> str:
        """Begin a run for this model; return its name there."""

    def send(self, run: str, numbers: Sequence[Number]) -> None:
        """Send numbers to a run. Sending the same numbers again does no harm."""

    def end(self, run: str) -> None:
        """End a run: no more numbers will be sent."""


def numbers_of_rounds(rounds: Sequence[Round], *, after: int) -> list[Number]:
    """The training metrics of the rounds after this one, and the validation metrics of all of them."""
    closed = {
        round_.number: 0.0 if round_.closed_on is None else round_.closed_on.timestamp() for round_ in rounds
    }
    return [
        number
        for merged in merged_metrics(rounds)
        if merged.round > after or merged.source != "training"
        for number in _numbers(merged, closed[merged.round])
    ]


def _numbers(merged: MergedMetric, at: float) -> Iterator[Number]:
    curve = f"{merged.source}/{_plain(merged.metric)}"
    for statistic in FORWARDED:
        name = curve if statistic == "mean" else f"{curve}/{statistic}"
        yield Number(name, merged.statistics[statistic], merged.round, at)


def _plain(metric: str) -> str:
    """The name of a metric, in characters that MLflow takes; a slash would make a folder of it.

    Clients choose the names. One that had to be changed ends with its digest, so that no two become one curve.
    """
    plain = re.sub(r"[^\w. -]", "_", metric).strip(" .")[:LONGEST_NAME]
    return plain if plain == metric else f"{plain}-{sha256(metric.encode()).hexdigest()[:8]}"
