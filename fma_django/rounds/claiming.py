"""Claiming a round, which freezes its updates and opens the next one.

Accepting an update and claiming both lock the row of the collecting round first: the one by counting the update, the
other FOR UPDATE (on SQLite a transaction that writes is alone). So an update is in the round before the claim freezes
it, or goes to the next one.
"""

from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from fma_django import conf
from fma_django.models import Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.configuration import as_configured
from fma_django.record.queries.aggregates import start_of
from fma_django.rounds.advance import facts_if_due
from fma_django.rounds.facts import num_clients
from fma_django.rounds.leases import Lease, take
from fma_django.rounds.publishing import fail
from fma_django.rounds.rows import lock_round, log_of_round, open_round_after


def claim(round_id: int) -> Lease | None:
    """The lease of a round that is due, or None when it is not (any more): calling twice does no harm.

    Due is a collecting round whose requirement is met, and an aggregating one whose lease has expired. Claiming a
    collecting round freezes its updates and opens the next round.
    """
    with transaction.atomic():
        wanted = lock_round(round_id)
        if wanted is None:
            return None
        now = timezone.now()
        if wanted.state == RoundState.AGGREGATING:
            return _reclaim(wanted, now)
        facts = facts_if_due(wanted) if wanted.is_open else None
        if facts is None:
            if wanted.asked_on is not None:
                # No task waits any more: whatever makes the round due enqueues another one at once.
                wanted.asked_on = None
                wanted.save(update_fields=["asked_on"])
            return None
        inputs = _inputs_of(wanted, facts.num_clients)
        lease = take(wanted, now, attempts=1, ready_on=wanted.ready_on or now, **inputs)
        wanted.model_updates.filter(status=UpdateStatus.PENDING).update(status=UpdateStatus.RUNNING)
        open_round_after(wanted)
        log_of_round("round_claimed", wanted, updates=wanted.num_updates, attempt=1)
        return lease


def _reclaim(wanted: Round, now: datetime) -> Lease | None:
    if wanted.lease_expires_at is None or wanted.lease_expires_at > now:
        return None
    before, attempts = wanted.attempts, conf.current().max_attempts
    inputs = {}
    if wanted.strategy is None:  # a version that did not write them down claimed it
        inputs = _inputs_of(wanted, num_clients(wanted.federated_model))
    lease = take(wanted, now, attempts=before + 1, **inputs)
    if before >= attempts:
        fail(
            lease,
            code="too_many_attempts",
            detail=f"{attempts} workers began to aggregate it and none finished",
        )
        return None
    log_of_round("round_claimed", wanted, updates=wanted.num_updates, attempt=before + 1)
    return lease


def _inputs_of(claimed: Round, counted: int) -> dict[str, Any]:
    """All that the result depends on beside the updates and the state of the parent, for the round's row."""
    experiment = as_configured(claimed)
    return {
        "strategy": experiment.build_strategy().to_json(),
        "num_clients": counted,
        "start_sha256": start_of(experiment, claimed.parent),
    }
