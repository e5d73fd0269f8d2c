"""Updates that wait in a round, and why some of them do not count (any more)."""

from collections.abc import Collection

from django.db.models import F, Q

from fma_django.models import FederatedModel, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.record.configuration import as_configured
from fma_django.record.queries.aggregates import newest_aggregate_ids

ABANDONED = "the model was rewound to an aggregate before its base_aggregate"
LATE = "it was trained for an earlier round, and the model's policy refuses late updates (late_updates)"

FORMER_KEY = "it is signed with a key that was replaced since"


def drop_updates(current: Round, reason: str, *, only: Collection[int] | None = None) -> None:
    """Mark what waits in a round as not counting: all of it, or the updates of these ids."""
    waiting = current.model_updates.filter(status=UpdateStatus.PENDING)
    if only is not None:
        waiting = waiting.filter(pk__in=only)
    waiting.update(status=UpdateStatus.INVALID, status_reason=reason)
    recount(current)


def drop_updates_that_no_longer_count(federated_model: FederatedModel, collecting: Round) -> None:
    """Mark waiting updates of clients that left, and those whose base no longer counts."""
    experiment = as_configured(collecting)
    waiting = collecting.model_updates.filter(status=UpdateStatus.PENDING)
    waiting.exclude(client__in=federated_model.clients.filter(is_active=True)).update(
        status=UpdateStatus.INVALID, status_reason="the client is no longer registered with the model"
    )
    waiting.filter(base_aggregate__is_abandoned=True).update(
        status=UpdateStatus.INVALID, status_reason=ABANDONED
    )
    allowed = newest_aggregate_ids(federated_model, experiment.furthest_base_agg)
    if allowed is not None:
        stale = ~Q(base_aggregate__in=allowed)
        waiting.filter(stale).update(status=UpdateStatus.INVALID, status_reason=stale_reason(experiment))
    if experiment.round_policy.get("late_updates") == "refuse" and collecting.parent_id is not None:
        missed = ~Q(base_aggregate=collecting.parent_id)
        waiting.filter(missed).update(status=UpdateStatus.INVALID, status_reason=LATE)
    recount(collecting)


def drop_updates_of_former_keys(collecting: Round) -> None:
    """Mark waiting updates that are signed with a key which is not their client's now."""
    waiting = collecting.model_updates.filter(status=UpdateStatus.PENDING, signed__isnull=False)
    waiting.exclude(signed__public_key=F("client__public_key")).update(
        status=UpdateStatus.INVALID, status_reason=FORMER_KEY
    )
    recount(collecting)


def stale_reason(experiment: FederatedModel) -> str:
    return (
        f"its base_aggregate is not among the {experiment.furthest_base_agg} newest aggregates of the model "
        "(furthest_base_agg)"
    )


def recount(current: Round) -> None:
    current.num_updates = current.model_updates.filter(
        status__in=(UpdateStatus.PENDING, UpdateStatus.RUNNING)
    ).count()
    Round.objects.filter(pk=current.pk).update(num_updates=current.num_updates)
