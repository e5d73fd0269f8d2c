"""Metrics as curves, for a model's admin page and for `fma plot`."""

from collections.abc import Mapping
from dataclasses import dataclass

from fma_django.models import FederatedModel
from fma_django.record.queries.metrics import Source, merged_metrics, published_rounds

MAX_POINTS = 500
# The metrics that people look for first; the rest by name.
USUAL = ("loss", "accuracy", "validation_score")


@dataclass(frozen=True)
class Point:
    """One round. low, high: the 5th and the 95th percentile of the clients."""

    round: int
    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Curve:
    source: Source
    metric: str
    points: tuple[Point, ...]

    @property
    def title(self) -> str:
        return f"{self.metric}, {self.source}"


def curves_of(
    federated_model: FederatedModel, *, metric: str | None = None, num_rounds: int = MAX_POINTS
) -> list[Curve]:
    """The curves of the newest rounds, the usual metrics first, in two queries. metric: only this one.

    Without rounds that were abandoned by a rewind: they do not lead to the model as it is.
    """
    kept = published_rounds(federated_model).filter(aggregate__is_abandoned=False)
    newest = list(kept.order_by("-number")[:num_rounds])
    points: dict[tuple[Source, str], list[Point]] = {}
    for row in merged_metrics(newest[::-1]):
        if metric in (None, row.metric):
            points.setdefault((row.source, row.metric), []).append(_point(row.round, row.statistics))
    return [Curve(source, name, tuple(points[source, name])) for source, name in sorted(points, key=_place)]


def _point(number: int, statistics: Mapping[str, float]) -> Point:
    return Point(number, statistics["mean"], statistics["p5"], statistics["p95"], int(statistics["count"]))


def _place(key: tuple[Source, str]) -> tuple[int, str, str]:
    source, name = key
    return (USUAL.index(name) if name in USUAL else len(USUAL), name, source)
