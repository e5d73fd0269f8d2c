"""The end of an experiment, by its policy or by somebody's wish."""

import structlog
from django.utils import timezone

from fma_core.errors import InvalidPart
from fma_django.models import FederatedModel, Round
from fma_django.models.round import RoundState
from fma_django.record.queries.metric_history import metric_history
from fma_django.rounds.rows import move
from fma_django.rounds.waiting_updates import drop_updates

log = structlog.get_logger(__name__)


def end_experiment(federated_model: FederatedModel, reason: str, *, collecting: Round | None) -> None:
    """End an experiment and its open round, inside a transaction. A round that is being aggregated may still be
    published.

    collecting: the open round, which this transaction holds; None when it has ended already.
    """
    now = timezone.now()
    if collecting is not None:
        drop_updates(collecting, f"the experiment ended ({reason})")
        move(collecting, RoundState.CANCELLED, closed_on=now)
    FederatedModel.objects.filter(pk=federated_model.pk, ended_on__isnull=True).update(
        ended_on=now, end_reason=reason, allow_aggregation=False
    )
    log.info("experiment_ended", model=federated_model.pk, reason=reason)


def reason_to_end(federated_model: FederatedModel) -> str | None:
    """Why a model's policy, as it is now, ends the experiment; None while it does not."""
    try:
        policy = federated_model.build_round_policy()
    except InvalidPart as error:
        log.error("model_unusable", model=federated_model.pk, error=error.message)
        return None
    if policy.num_rounds is None and policy.end_date is None and policy.metric is None:
        return None
    return policy.end_reason(
        num_aggregates=Round.objects.filter(
            federated_model=federated_model, state=RoundState.PUBLISHED, aggregate__is_abandoned=False
        ).count(),
        values=metric_history(federated_model, policy),
        now=timezone.now(),
    )
