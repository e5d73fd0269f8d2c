"""How an evaluation ends: when everyone has answered, by its deadline, or by its owner; and what is shown then.

Metrics are merged once, at the end, and only of enough contributors. All evaluations of the developer's models are
locked meanwhile, in the order of their ids, so that two that end together are looked at beside each other.
"""

from collections.abc import Sequence
from typing import Any

import structlog
from django.db import transaction
from django.utils import timezone

from fma_core.evaluation import from_json, merge, metrics_of
from fma_django import wakeups
from fma_django.errors import InvalidTransition
from fma_django.evaluations.privacy import isolation_beside_shown, remember_shown
from fma_django.models import EvaluationResult, EvaluationRound, FederatedModel
from fma_django.models.evaluation_round import EvaluationReason, EvaluationState, Withheld

log = structlog.get_logger(__name__)


def close_evaluation(
    evaluation: EvaluationRound, reason: EvaluationReason = EvaluationReason.BY_OWNER
) -> None:
    """Take no more results, and show what the contributors say together, if they are enough.

    Raises InvalidTransition when it has ended already.
    """
    with transaction.atomic():
        current = _lock(evaluation)
        _decide(current, _contributing(current))
        _end(current, EvaluationState.CLOSED, reason)
    log.info(
        "evaluation_closed",
        model=current.federated_model_id,
        evaluation=current.pk,
        reason=reason.value,
        contributors=current.num_contributors,
        withheld=current.withheld or None,
    )


def cancel_evaluation(evaluation: EvaluationRound) -> None:
    """Take no more results, and show none. Raises InvalidTransition when it has ended already."""
    with transaction.atomic():
        _end(_lock(evaluation), EvaluationState.CANCELLED, EvaluationReason.BY_OWNER)


def close_if_all_answered(evaluation: EvaluationRound) -> None:
    """Clients that were taken out or revoked are not waited for."""
    federated_model = evaluation.federated_model_id
    missing = evaluation.clients.filter(is_active=True, federated_models=federated_model)
    if not missing.exclude(evaluation_results__evaluation=evaluation).exists():
        _close_unless_ended(evaluation, EvaluationReason.ALL_ANSWERED)


def close_due_evaluations() -> None:
    """Close the evaluations whose deadline has passed, by the server's clock."""
    due = EvaluationRound.objects.filter(state=EvaluationState.OPEN, deadline_at__lte=timezone.now())
    for evaluation in due.order_by("pk"):
        _close_unless_ended(evaluation, EvaluationReason.DEADLINE)


def _close_unless_ended(evaluation: EvaluationRound, reason: EvaluationReason) -> None:
    try:
        close_evaluation(evaluation, reason)
    except InvalidTransition:
        log.info("evaluation_ended_already", evaluation=evaluation.pk)


def _lock(evaluation: EvaluationRound) -> EvaluationRound:
    own = FederatedModel.objects.filter(developer=evaluation.federated_model.developer_id)
    siblings = EvaluationRound.objects.select_for_update().filter(federated_model__in=own.order_by())
    list(siblings.order_by("pk").values_list("pk", flat=True))
    current = EvaluationRound.objects.get(pk=evaluation.pk)
    if not current.is_open:
        raise InvalidTransition(f"evaluation {current.pk} is {current.state} already")
    return current


def _contributing(evaluation: EvaluationRound) -> list[EvaluationResult]:
    """Without their statistics. Of an organisation with fewer answers than its quorum, none."""
    results = list(evaluation.results.defer("statistics").order_by("client_id"))
    quorum = evaluation.quorum_per_organisation or 1
    answers: dict[int | None, int] = {}
    for result in results:
        answers[result.organisation_id] = answers.get(result.organisation_id, 0) + 1
    return [
        result
        for result in results
        if result.organisation_id is None or answers[result.organisation_id] >= quorum
    ]


def _decide(evaluation: EvaluationRound, contributing: Sequence[EvaluationResult]) -> None:
    by_client = {str(result.client_id): result.contributor for result in contributing}
    minimum = evaluation.min_contributors
    evaluation.num_contributors = len(set(by_client.values()))
    if evaluation.num_contributors < minimum:
        evaluation.withheld = Withheld.TOO_FEW_CONTRIBUTORS
        evaluation.withheld_detail = (
            f"{evaluation.num_contributors} contributors answered (organisations, or clients without one); "
            f"metrics are shown of {minimum} or more"
        )
        return
    isolation = isolation_beside_shown(evaluation.federated_model, by_client, min_contributors=minimum)
    if isolation is not None:
        evaluation.withheld = Withheld.ISOLATES_CONTRIBUTORS
        evaluation.withheld_detail = isolation
        return
    counted = EvaluationResult.objects.filter(pk__in=[result.pk for result in contributing])
    counted.update(is_counted=True)
    remember_shown(evaluation, contributing)
    evaluation.metrics = _merged(evaluation)


def _merged(evaluation: EvaluationRound) -> dict[str, Any]:
    question = evaluation.asked
    counted = evaluation.results.filter(is_counted=True).order_by("client_id")
    # One after the other: thousands of histograms need not be in memory together.
    sent = counted.values_list("statistics", flat=True).iterator(chunk_size=50)
    return metrics_of(merge(from_json(question, statistics) for statistics in sent))


def _end(evaluation: EvaluationRound, state: EvaluationState, reason: EvaluationReason) -> None:
    evaluation.state = state
    evaluation.reason = reason
    evaluation.closed_on = timezone.now()
    evaluation.save(
        update_fields=[
            "state",
            "reason",
            "closed_on",
            "num_contributors",
            "metrics",
            "withheld",
            "withheld_detail",
        ]
    )
    wakeups.send(wakeups.of_model(evaluation.federated_model_id))
