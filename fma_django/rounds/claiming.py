"""Rounds on their way: claimed by a worker, published, failed, cancelled.

Who may touch a round at a time: receiving an update and claiming both take the row of the collecting round first
(`select_for_update`; on SQLite the transaction itself is exclusive), so that an update is in the round before the
claim freezes it, or goes to the next one.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from fma_core.arrays.codecs.receive import Received
from fma_django import conf, wakeups
from fma_django.errors import InvalidTransition, LeaseLost
from fma_django.models import ModelAggregate, ModelUpdate, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.configuration import as_configured
from fma_django.record.queries.aggregates import start_of
from fma_django.rounds.closing import (
    close_if_due,
    may_start_aggregating,
    num_clients,
    verdict_of,
    what_is_beside,
)
from fma_django.rounds.ending import end_if_over
from fma_django.rounds.rows import find_open_round, lock_round, move, open_round, open_round_after
from fma_django.rounds.starting import start_if_possible
from fma_django.rounds.waiting_updates import drop_updates, drop_updates_that_no_longer_count, recount


@dataclass(frozen=True)
class Lease:
    """The right to publish a round, until it expires or is taken over.

    claimed: the round as it was claimed, with its model and its parent.
    """

    round_id: int
    token: uuid.UUID
    claimed: Round = field(repr=False, compare=False)


def claim(round_id: int) -> Lease | None:
    """The lease of a round that is due, or None when it is not (any more): calling twice does no harm.

    Due is a collecting round whose requirement is met, and an aggregating one whose lease has expired. Claiming a
    collecting round freezes its updates and opens the next round.
    """
    with transaction.atomic():
        found = lock_round(round_id)
        if found is None:
            return None
        now = timezone.now()
        if found.state == RoundState.AGGREGATING:
            return _reclaim(found, now)
        if found.state != RoundState.COLLECTING:
            return None
        beside = what_is_beside(found.federated_model)
        if not may_start_aggregating(found, beside):
            return None
        lease = _take(
            found, now, attempts=1, ready_on=found.ready_on or now, **_inputs_of(found, beside.num_clients)
        )
        found.model_updates.filter(status=UpdateStatus.PENDING).update(status=UpdateStatus.RUNNING)
        open_round_after(found)
        return lease


def renew(lease: Lease) -> None:
    """Hold the lease for another term. Raises LeaseLost."""
    now = timezone.now()
    held = _held(lease, now).update(lease_expires_at=_expiry(now))
    if not held:
        raise _lost(lease)


def release(lease: Lease) -> None:
    """Give the round back at once, to be tried again by the next sweep; not the round's fault, so not an attempt."""
    Round.objects.filter(pk=lease.round_id, lease_token=lease.token).update(
        lease_expires_at=timezone.now(), attempts=F("attempts") - 1
    )


def leased_round(lease: Lease, *, for_update: bool = False) -> Round:
    """The round with its model, locked when asked for. Raises LeaseLost, also when the model was deleted meanwhile."""
    held = _held(lease, timezone.now())
    if for_update:
        held = held.select_for_update(of=("self",))
    found = held.select_related("federated_model", "parent").first()
    if found is None:
        raise _lost(lease)
    return found


def publish(
    lease: Lease,
    weights: Received,
    state: Received | None = None,
    *,
    metrics: Mapping[str, Any] = MappingProxyType({}),
) -> ModelAggregate:
    """End the round with its aggregate, whose files are stored. Raises LeaseLost, and then nothing has changed.

    metrics: what its updates measured, merged.
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
        _end(lease, RoundState.PUBLISHED, aggregate=aggregate, metrics=dict(metrics))
        lease.claimed.model_updates.filter(status=UpdateStatus.RUNNING).update(
            status=UpdateStatus.COMPLETE, applied_aggregate=aggregate
        )
        # Looked for after all that: an experiment that had ended may have begun again meanwhile.
        following = find_open_round(federated_model)
        # Said once: who waits for the next news already would be woken for nothing.
        if following is None or not _go_on(following, parent=aggregate):
            wakeups.send(wakeups.of_model(federated_model.pk))
        return aggregate


def fail(lease: Lease, *, code: str, detail: str) -> None:
    """End the round without an aggregate. Its updates are not used again: one of them may be why it failed."""
    with transaction.atomic():
        failed = leased_round(lease, for_update=True)
        _end(lease, RoundState.FAILED, failure_code=code, failure_detail=detail)
        failed.model_updates.filter(status=UpdateStatus.RUNNING).update(
            status=UpdateStatus.FAILED, status_reason=f"round {failed.number} failed: {detail}"
        )
        following = find_open_round(failed.federated_model)
        if following is None or not _go_on(following, parent=following.parent):
            wakeups.send(wakeups.of_model(failed.federated_model_id))


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
        start_if_possible(open_round(current.federated_model))
    cancelled.refresh_from_db()
    return cancelled


def exclude_update(lease: Lease, update_id: int, reason: str) -> bool:
    """Take an unusable update out of a round that is being aggregated; whether the rest meets the requirement."""
    with transaction.atomic():
        renew(lease)
        aggregating = leased_round(lease, for_update=True)
        ModelUpdate.objects.filter(pk=update_id, round=aggregating, status=UpdateStatus.RUNNING).update(
            status=UpdateStatus.FAILED, status_reason=reason
        )
        recount(aggregating)
        return verdict_of(aggregating) == "close"


def _go_on(following: Round, *, parent: ModelAggregate | None) -> bool:
    """What the end of one round makes possible for the next, which this transaction holds; whether it was started, and
    who waits for news of the model is told."""
    Round.objects.filter(pk=following.pk).update(parent=parent)
    following.parent = parent
    has_updates = following.num_updates > 0
    if has_updates:
        drop_updates_that_no_longer_count(following.federated_model, following)
    if end_if_over(following.federated_model):
        return False
    is_started = start_if_possible(following)
    if has_updates:  # a round without any is never due
        close_if_due(following)
    return is_started


def _end(lease: Lease, to: RoundState, **changes: object) -> None:
    now = timezone.now()
    ended = _held(lease, now).update(
        state=to, closed_on=now, lease_token=None, lease_expires_at=None, **changes
    )
    if not ended:
        raise _lost(lease)


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"the lease of round {lease.round_id} expired or was taken over", round_id=lease.round_id
    )


def _held(lease: Lease, now: datetime) -> QuerySet[Round]:
    return Round.objects.filter(
        pk=lease.round_id, state=RoundState.AGGREGATING, lease_token=lease.token, lease_expires_at__gt=now
    )


def _reclaim(found: Round, now: datetime) -> Lease | None:
    if found.lease_expires_at is None or found.lease_expires_at > now:
        return None
    before, attempts = found.attempts, conf.current().max_attempts
    inputs = {}
    if found.strategy is None:  # a version that did not write them down claimed it
        inputs = _inputs_of(found, num_clients(found.federated_model))
    lease = _take(found, now, attempts=before + 1, **inputs)
    if before >= attempts:
        fail(
            lease,
            code="too_many_attempts",
            detail=f"{attempts} workers began to aggregate it and none finished",
        )
        return None
    return lease


def _take(found: Round, now: datetime, **changes: Any) -> Lease:
    changes |= {"lease_token": uuid.uuid4(), "lease_expires_at": _expiry(now), "claimed_on": now}
    move(found, RoundState.AGGREGATING, **changes)
    for name, value in {"state": RoundState.AGGREGATING, **changes}.items():
        setattr(found, name, value)
    return Lease(found.pk, changes["lease_token"], found)


def _inputs_of(claimed: Round, counted: int) -> dict[str, Any]:
    """All that the result depends on beside the updates and the state of the parent, for the round's row."""
    experiment = as_configured(claimed)
    return {
        "strategy": experiment.build_strategy().to_json(),
        "num_clients": counted,
        "start_sha256": start_of(experiment, claimed.parent),
    }


def _expiry(now: datetime) -> datetime:
    return now + timedelta(seconds=conf.current().lease_s)
