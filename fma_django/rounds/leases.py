"""The lease of a round: the right to publish it, which a worker holds while it gives signs of life."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, QuerySet
from django.utils import timezone

from fma_core.engine import ENGINE_VERSION
from fma_django import conf
from fma_django.errors import LeaseLost
from fma_django.models import Round
from fma_django.models.round import RoundState
from fma_django.rounds.holders import has_ended, this_machine, this_process
from fma_django.rounds.rows import move


@dataclass(frozen=True)
class Lease:
    """The right to publish a round, until it expires or is taken over.

    claimed: the round as it was claimed, with its model and its parent.
    """

    round_id: int
    token: uuid.UUID
    claimed: Round = field(repr=False, compare=False)


def take(held: Round, now: datetime, **changes: Any) -> Lease:
    """Move a locked round to `aggregating`, with these changes, under a new lease."""
    changes |= {
        "lease_token": uuid.uuid4(),
        "lease_expires_at": _expiry(now),
        "lease_holder": this_process(),
        "claimed_on": now,
        "engine_version": ENGINE_VERSION,
    }
    move(held, RoundState.AGGREGATING, **changes)
    for name, value in {"state": RoundState.AGGREGATING, **changes}.items():
        setattr(held, name, value)
    return Lease(held.pk, changes["lease_token"], held)


def renew(lease: Lease) -> None:
    """Hold the lease for another term. Raises LeaseLost."""
    now = timezone.now()
    if not _held(lease, now).update(lease_expires_at=_expiry(now)):
        raise _lost(lease)


def release(lease: Lease) -> None:
    """Give the round back at once, to be tried again by the next sweep; not the round's fault, so not an attempt."""
    Round.objects.filter(pk=lease.round_id, lease_token=lease.token).update(
        lease_expires_at=timezone.now(), attempts=F("attempts") - 1
    )


def end_those_of_the_dead() -> list[Round]:
    """End the leases whose processes ran on this machine and run no more; the rounds that can be taken up now.

    As an attempt, as if the lease had expired: the round may be what killed its worker.
    """
    machine = this_machine()
    if not machine:
        return []
    now = timezone.now()
    held = Round.objects.filter(
        state=RoundState.AGGREGATING, lease_expires_at__gt=now, lease_holder__startswith=f"{machine}/"
    )
    ended = []
    for left in held.only("federated_model", "number", "lease_token", "lease_holder"):
        lease = Round.objects.filter(pk=left.pk, state=RoundState.AGGREGATING, lease_token=left.lease_token)
        if has_ended(left.lease_holder) and lease.update(lease_expires_at=now):
            ended.append(left)
    return ended


def lock_leased(lease: Lease) -> Round:
    """The round with its model, locked. Raises LeaseLost, also when the model was deleted meanwhile."""
    leased = _held(lease, timezone.now()).select_for_update(of=("self",))
    leased_round = leased.select_related("federated_model", "parent").first()
    if leased_round is None:
        raise _lost(lease)
    return leased_round


def end_leased(lease: Lease, to: RoundState, **changes: object) -> None:
    """End the round in this state, with these changes, and its lease with it. Raises LeaseLost."""
    now = timezone.now()
    ended = _held(lease, now).update(
        state=to, closed_on=now, lease_token=None, lease_expires_at=None, **changes
    )
    if not ended:
        raise _lost(lease)


def _held(lease: Lease, now: datetime) -> QuerySet[Round]:
    return Round.objects.filter(
        pk=lease.round_id, state=RoundState.AGGREGATING, lease_token=lease.token, lease_expires_at__gt=now
    )


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"the lease of round {lease.round_id} expired or was taken over", round_id=lease.round_id
    )


def _expiry(now: datetime) -> datetime:
    return now + timedelta(seconds=conf.current().lease_s)
