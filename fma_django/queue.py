"""Enqueue tasks for a worker, once the transaction that makes them due has committed."""

from datetime import timedelta

import structlog
from django.db import transaction

log = structlog.get_logger(__name__)

# A task that was enqueued so long ago, and that no worker has taken, may have been lost with its process.
LOST_AFTER = timedelta(seconds=30)


def aggregate_on_commit(round_id: int) -> None:
    transaction.on_commit(lambda: aggregate(round_id))


def aggregate(round_id: int) -> None:
    """Enqueue the aggregation of a round.

    A broker that is down does not undo what was committed: the sweep finds the round and asks again.
    """
    _enqueue("aggregate", round_id=round_id)


def forward(federated_model_id: int) -> None:
    """Enqueue the forwarding of a model's metrics; the sweep asks again for what was not enqueued."""
    _enqueue("forward", model=federated_model_id)


def _enqueue(task: str, **subject: int) -> None:
    from django_q.tasks import async_task

    try:
        async_task(f"fma_django.work.tasks.{task}", *subject.values())
    except Exception as error:  # noqa: BLE001 - whatever the broker's library raises
        log.error("enqueue_failed", task=task, **subject, error=repr(error))
