"""Repair by schedule: rounds whose worker died, requests that were lost, files to which no row refers."""

from datetime import datetime, timedelta
from importlib import import_module

import structlog
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from fma_django import conf, queue
from fma_django.clients.registration import forget_unapproved_clients
from fma_django.clients.reports import forget_old_reports
from fma_django.evaluations.ends import close_due_evaluations
from fma_django.models import FederatedModel, IdempotencyKey, Round, Worker
from fma_django.models.round import RoundState
from fma_django.record.idempotency import KEPT_FOR
from fma_django.record.queries.blobs import named_blobs
from fma_django.rounds import leases
from fma_django.rounds.advance import advance
from fma_django.rounds.deadlines import by_itself, fire_deadlines, look_at_the_time
from fma_django.rounds.rows import find_open_round, ids_of
from fma_django.storage import get_store
from fma_django.updates.uploads import sweep_uploads
from fma_django.work.store_owner import take_turn

log = structlog.get_logger(__name__)


def sweep_rounds() -> None:
    """Enqueue again every aggregation that is due and that no worker is doing."""
    now = timezone.now()
    for expired in Round.objects.filter(state=RoundState.AGGREGATING, lease_expires_at__lte=now):
        log.warning("lease_expired", **ids_of(expired), attempts=expired.attempts)
        queue.aggregate(expired.pk)
    waiting = Q(rounds__asked_on__isnull=True) | Q(rounds__asked_on__lte=now - queue.LOST_AFTER)
    for federated_model in FederatedModel.objects.filter(
        waiting, allow_aggregation=True, rounds__state=RoundState.COLLECTING, rounds__num_updates__gt=0
    ):
        with by_itself(federated_model):
            collecting = find_open_round(federated_model)
            if collecting is not None:
                advance(collecting)
    fire_deadlines()
    look_at_the_time()
    close_due_evaluations()


def take_up_rounds_of_dead_workers() -> None:
    """Enqueue again the rounds whose workers have died on this machine, without waiting for their leases."""
    for left in leases.end_those_of_the_dead():
        log.warning("worker_died", **ids_of(left))
        queue.aggregate(left.pk)


def sweep_files() -> int:
    """Remove the blobs to which no row refers and that are older than FMA_ORPHAN_GRACE_SECONDS; return how many.

    The grace time protects an upload whose file is stored and whose row is not yet: it must be longer than any
    request. Storing the same content again resets the age of a blob. The first sweep after the workers started removes
    nothing: an owner with a copy of this database has until the next one to object.
    Raises StoreNotOurs, and removes nothing, where another installation owns the store.
    """
    store = get_store()
    if not take_turn(store):
        return 0
    deadline = timezone.now() - timedelta(seconds=conf.current().orphan_grace_s)
    removed = 0
    candidates: list[str] = []
    for blob in store.blobs():
        if blob.modified_at < deadline:
            candidates.append(blob.sha256)
        if len(candidates) == 500:
            removed += _remove_orphans(candidates, deadline)
            candidates = []
    removed += _remove_orphans(candidates, deadline)
    store.remove_unfinished(deadline)
    return removed


def sweep_memory() -> None:
    """Forget what no longer matters: idempotency keys, uploads, workers, sessions, reports, unapproved clients."""
    now = timezone.now()
    IdempotencyKey.objects.filter(created_on__lt=now - KEPT_FOR).delete()
    Worker.objects.filter(seen_on__lt=now - timedelta(days=1)).delete()
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()
    forget_old_reports()
    forget_unapproved_clients()
    sweep_uploads()


def _remove_orphans(candidates: list[str], deadline: datetime) -> int:
    kept = named_blobs(candidates)
    removed = 0
    for sha256 in candidates:
        if sha256 not in kept and get_store().delete(sha256, older_than=deadline):
            log.info("orphan_removed", sha256=sha256)
            removed += 1
    return removed
