"""The metric that a policy looks at, round after round."""

from collections import defaultdict
from typing import Any

from fma_core.metrics import merge
from fma_core.rounds.policy import RoundPolicy
from fma_django.models import ClientAggregateScore, FederatedModel, Round
from fma_django.models.round import RoundState


def metric_history(federated_model: FederatedModel, policy: RoundPolicy) -> list[float | None]:
    """Its mean after each published round, oldest first; None where nobody reported it, [] without a metric."""
    if policy.metric is None:
        return []
    published = Round.objects.filter(
        federated_model=federated_model, state=RoundState.PUBLISHED, aggregate__is_abandoned=False
    ).order_by("number")
    if policy.metric_source == "training":
        rows = published.values_list("metrics", flat=True)
        return [_mean(merged, policy.metric) for merged in rows]
    scores: dict[int, list[Any]] = defaultdict(list)
    of_model = ClientAggregateScore.objects.filter(aggregate__federated_model=federated_model)
    for aggregate_id, results in of_model.values_list("aggregate_id", "validation_results"):
        if isinstance(results, dict):
            scores[aggregate_id].append(results)
    return [
        _mean(
            merge(
                (1.0, results if isinstance(results, dict) else {})
                for results in scores.get(aggregate_id, [])
            ),
            policy.metric,
        )
        for aggregate_id in published.values_list("aggregate_id", flat=True)
    ]


def _mean(merged: Any, name: str) -> float | None:
    return merged[name]["mean"] if name in merged else None
