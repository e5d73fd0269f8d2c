"""The end of a round: published with its aggregate, failed, or cancelled; the next one goes on from there."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from fma_core.arrays.codecs.receive import Received
from fma_core.engine import UpdateUse
from fma_django import wakeups
from fma_django.errors import InvalidTransition
from fma_django.models import FederatedModel, ModelAggregate, ModelUpdate, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.sql import Statement
from fma_django.rounds.advance import advance
from fma_django.rounds.facts import is_complete
from fma_django.rounds.leases import Lease, end_leased, lock_leased, renew
from fma_django.rounds.rows import find_open_round, log_of_round, move, open_round
from fma_django.rounds.waiting_updates import drop_updates, drop_updates_that_no_longer_count, recount

# A round of a thousand updates has as many uses: by the ORM they would take as long as the rest of its publication.
_WRITE_USE = Statement(
    """UPDATE {u} SET {u.applied_aggregate_id:bare} = %(applied_aggregate_id)s, {u.verdict:bare} = %(verdict)s,
    {u.verdict_by:bare} = %(verdict_by)s, {u.weight_used:bare} = %(weight_used)s,
    {u.step_norm:bare} = %(step_norm)s, {u.distance:bare} = %(distance)s
    WHERE {u.id} = %(id)s AND {u.status} = {complete}""",
    u=ModelUpdate,
    complete=UpdateStatus.COMPLETE,
)


def publish(
    lease: Lease,
    weights: Received,
    state: Received | None = None,
    *,
    metrics: Mapping[str, Any],
    uses: Mapping[int, UpdateUse],
) -> ModelAggregate:
    """End the round with its aggregate, whose files are stored. Raises LeaseLost, and then nothing has changed.

    metrics: what its updates measured, merged. uses: the use that was made of each update, by its id.
    """
    federated_model = lease.claimed.federated_model
    with transaction.atomic():
        aggregate = ModelAggregate.objects.create(
            federated_model=federated_model,
            parent=lease.claimed.parent,
            sha256=weights.sha256,
            size_bytes=weights.size_bytes,
            state_sha256="" if state is None else state.sha256,
            state_size_bytes=None if state is None else state.size_bytes,
        )
        end_leased(lease, RoundState.PUBLISHED, aggregate=aggregate, metrics=dict(metrics))
        _complete_updates(lease.claimed, aggregate, uses)
        _lead_to_next(federated_model, aggregate)
        return aggregate


def fail(lease: Lease, *, code: str, detail: str) -> None:
    """End the round without an aggregate. Its updates are not used again: one of them may be why it failed."""
    with transaction.atomic():
        failed = lock_leased(lease)
        end_leased(lease, RoundState.FAILED, failure_code=code, failure_detail=detail)
        failed.model_updates.filter(status=UpdateStatus.RUNNING).update(
            status=UpdateStatus.FAILED, status_reason=f"round {failed.number} failed: {detail}"
        )
        log_of_round("round_failed", failed, level="error", code=code, detail=detail)
        _lead_to_next(failed.federated_model)


def cancel(cancelled: Round) -> Round:
    """End a collecting round without using what was sent, and open the next one.

    Raises InvalidTransition when it is not collecting (any more).
    """
    with transaction.atomic():
        # Without this look a round that was claimed meanwhile would cost the round after it.
        current = find_open_round(cancelled.federated_model)
        if current is None or current.pk != cancelled.pk:
            raise InvalidTransition(
                f"{cancelled} of {cancelled.federated_model} is no longer collecting", round_id=cancelled.pk
            )
        drop_updates(current, f"round {current.number} was cancelled")
        move(current, RoundState.CANCELLED, closed_on=timezone.now())
        advance(open_round(current.federated_model))
    cancelled.refresh_from_db()
    return cancelled


def exclude_update(lease: Lease, update_id: int, reason: str) -> bool:
    """Take an unusable update out of a round that is being aggregated; whether the rest meets the requirement."""
    with transaction.atomic():
        renew(lease)
        aggregating = lock_leased(lease)
        ModelUpdate.objects.filter(pk=update_id, round=aggregating, status=UpdateStatus.RUNNING).update(
            status=UpdateStatus.FAILED, status_reason=reason
        )
        recount(aggregating)
        return is_complete(aggregating)


def _complete_updates(published: Round, aggregate: ModelAggregate, uses: Mapping[int, UpdateUse]) -> None:
    """Write down what became of each update: one statement for most of them, and one for each that differs."""
    most = Counter(uses.values()).most_common(1)[0][0] if uses else None
    published.model_updates.filter(status=UpdateStatus.RUNNING).update(
        status=UpdateStatus.COMPLETE, **_columns_of(most, aggregate)
    )
    others = [{"id": pk, **_columns_of(use, aggregate)} for pk, use in uses.items() if use != most]
    if others:
        with connection.cursor() as cursor:
            cursor.executemany(_WRITE_USE.text, others)


def _columns_of(use: UpdateUse | None, aggregate: ModelAggregate) -> dict[str, Any]:
    if use is None:
        return {"applied_aggregate_id": aggregate.pk}
    return {
        "applied_aggregate_id": aggregate.pk if use.counts else None,
        "verdict": use.verdict,
        "verdict_by": use.by,
        "weight_used": use.weight,
        "step_norm": use.norm,
        "distance": use.distance,
    }


def _lead_to_next(federated_model: FederatedModel, aggregate: ModelAggregate | None = None) -> None:
    """Let the open round go on from this aggregate, if there is one, and wake the clients that wait for news."""
    # Looked for when the round before it has ended: an experiment that was over may have begun again meanwhile.
    following = find_open_round(federated_model)
    if following is None:
        wakeups.send(wakeups.of_model(federated_model.pk))
        return
    if aggregate is not None:
        following.parent = aggregate
        following.save(update_fields=["parent"])
    if following.num_updates:
        drop_updates_that_no_longer_count(following.federated_model, following)
    advance(following, may_end=True, has_news=True)
