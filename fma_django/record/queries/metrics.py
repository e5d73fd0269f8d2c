"""Metrics of each round as rows: of training by clients, of validation by clients and by developers."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from django.db.models import QuerySet

from fma_core.aggregation.aggregators.aggregator import MAX_NUM_EXAMPLES
from fma_core.metrics import STATISTICS, merge, numbers_of
from fma_django.models import ClientAggregateScore, FederatedModel, ModelUpdate, Round
from fma_django.models.model_update import ACCEPTED, UpdateVerdict
from fma_django.models.round import RoundState

Source = Literal["training", "validation", "developer"]
SOURCES: tuple[Source, ...] = ("training", "validation", "developer")
EXAMPLES = "num_examples"


@dataclass(frozen=True)
class MergedMetric:
    """One metric of one round. source: training (in the updates), validation (scores of clients for the aggregate), or
    developer (the aggregate's validation_score). statistics: those of `fma_core.metrics.merge`."""

    source: Source
    round: int
    aggregate: int
    metric: str
    statistics: Mapping[str, float]

    def as_row(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "round": self.round,
            "aggregate": self.aggregate,
            "metric": self.metric,
            **{name: self.statistics[name] for name in STATISTICS},
        }


@dataclass(frozen=True)
class ClientMetric:
    """One number that one client measured.

    weight: how much it counts in the mean, 0 for that of an update that was rejected. verdict, weight_used: the use of
    the update; None for scores, and for rounds of before there were verdicts.
    """

    source: Source
    round: int
    aggregate: int
    client: str
    metric: str
    value: float
    weight: float
    verdict: str | None = None
    weight_used: float | None = None

    def as_row(self) -> dict[str, Any]:
        return {**self.__dict__}


def published_rounds(federated_model: FederatedModel) -> QuerySet[Round]:
    """The rounds that have metrics, the oldest first."""
    return (
        Round.objects.filter(federated_model=federated_model, state=RoundState.PUBLISHED)
        .order_by("number")
        .select_related("aggregate")
        .only("number", "metrics", "closed_on", "aggregate__validation_score")
    )


def merged_metrics(rounds: Sequence[Round]) -> Iterator[MergedMetric]:
    """Every metric of these published rounds, in order of round, source and name. In one query."""
    scores = _scores(rounds)
    for round_ in rounds:
        aggregate = round_.aggregate_id or 0
        for name, statistics in sorted(round_.metrics.items()):
            yield MergedMetric("training", round_.number, aggregate, name, statistics)
        rows = [(weight, numbers) for _, weight, numbers in scores[aggregate]]
        for name, statistics in merge(rows).items():
            yield MergedMetric("validation", round_.number, aggregate, name, statistics)
        own = None if round_.aggregate is None else round_.aggregate.validation_score
        if own is not None:
            statistics = merge([(1, {"validation_score": own})])["validation_score"]
            yield MergedMetric("developer", round_.number, aggregate, "validation_score", statistics)


def client_metrics(rounds: Sequence[Round]) -> Iterator[ClientMetric]:
    """The metrics of each client in these published rounds, in two queries."""
    scores = _scores(rounds)
    updates = defaultdict(list)
    applied = ModelUpdate.objects.filter(round__in=[round_.pk for round_ in rounds], status__in=ACCEPTED)
    names = ("round_id", "client_id", "num_examples", "metrics", "verdict", "weight_used")
    for round_id, client, num_examples, metrics, *use in applied.order_by("pk").values_list(*names):
        weight = 0.0 if use[0] == UpdateVerdict.REJECTED else float(num_examples)
        updates[round_id].append((str(client), weight, numbers_of(metrics), *use))
    for round_ in rounds:
        aggregate = round_.aggregate_id or 0
        sources: tuple[tuple[Source, Any], ...] = (
            ("training", updates[round_.pk]),
            ("validation", scores[aggregate]),
        )
        for source, rows in sources:
            for client, weight, numbers, *use in rows:
                for name, value in numbers.items():
                    yield ClientMetric(source, round_.number, aggregate, client, name, value, weight, *use)


def _scores(rounds: Sequence[Round]) -> dict[int, list[tuple[str, float, dict[str, float]]]]:
    """Client, weight and numbers of each score, by aggregate.

    A score says by `num_examples` on how many examples it was measured, at most as many as an update may say; where one
    does not, all count alike.
    """
    by_aggregate: dict[int, list[tuple[str, float, dict[str, float]]]] = defaultdict(list)
    scores = ClientAggregateScore.objects.filter(aggregate__in=[each.aggregate_id for each in rounds])
    for aggregate, client, results in scores.order_by("pk").values_list(
        "aggregate_id", "client_id", "validation_results"
    ):
        numbers = numbers_of(results)
        weight = min(numbers.pop(EXAMPLES, 0.0), float(MAX_NUM_EXAMPLES))
        by_aggregate[aggregate].append((str(client), weight, numbers))
    for aggregate, rows in by_aggregate.items():
        if any(weight <= 0 for _, weight, _ in rows):
            by_aggregate[aggregate] = [(client, 1.0, numbers) for client, _, numbers in rows]
    return by_aggregate
