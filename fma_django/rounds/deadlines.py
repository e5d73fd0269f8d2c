"""Events of the clock: deadlines, end dates, clients that have become eligible.

Called by the clock of every worker, and by the sweep. May run in many places at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.db import DatabaseError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from fma_django.models import FederatedModel, Round
from fma_django.models.round import RoundState
from fma_django.record.sql import Statement, moment
from fma_django.rounds.advance import advance
from fma_django.rounds.ending import reason_to_end
from fma_django.rounds.rows import find_open_round

log = structlog.get_logger(__name__)

# Asked each second by every worker process.
_DUE = Statement(
    """SELECT 1 FROM {r} JOIN {m} ON {m.id} = {r.federated_model_id}
    WHERE {r.state} = {collecting} AND {r.deadline_at} <= %(now)s AND {r.ready_on} IS NULL
    AND {m.allow_aggregation} LIMIT 1""",
    r=Round,
    m=FederatedModel,
    collecting=RoundState.COLLECTING,
)


def is_any_due() -> bool:
    """Whether there is something for `fire_deadlines`, for those who ask each second."""
    with connection.cursor() as cursor:
        _DUE.execute(cursor, {"now": moment(cursor, timezone.now())})
        return cursor.fetchone() is not None


def fire_deadlines() -> int:
    """Close, reopen or end every round whose deadline has passed; how many that were."""
    due = Round.objects.filter(
        state=RoundState.COLLECTING,
        deadline_at__lte=timezone.now(),
        ready_on__isnull=True,
        federated_model__allow_aggregation=True,
    )
    fired = 0
    for late in due.select_related("federated_model"):
        with by_itself(late.federated_model):
            fired += _fire(late.federated_model)
    return fired


def look_at_the_time() -> None:
    """End experiments whose end date has passed, and start rounds for which enough clients have become eligible."""
    unstarted = Round.objects.filter(state=RoundState.COLLECTING, started_on__isnull=True)
    to_look_at = Q(round_policy__has_key="end_date") | Q(pk__in=unstarted.values("federated_model"))
    for federated_model in FederatedModel.objects.filter(to_look_at, allow_aggregation=True):
        with by_itself(federated_model):
            collecting = find_open_round(federated_model)
            if collecting is None:
                continue
            # The model of the round is as it is now: its end may have been put off.
            current = collecting.federated_model
            is_over = "end_date" in current.round_policy and reason_to_end(current) is not None
            if is_over or collecting.started_on is None:
                advance(collecting, may_end=is_over)


@contextmanager
def by_itself(federated_model: FederatedModel) -> Iterator[None]:
    """A transaction of one model, whose defect, in a plugin perhaps, stops no other model's clock."""
    try:
        with transaction.atomic():
            yield
    except DatabaseError:
        raise  # the database is away for all of them
    except Exception:
        log.exception("clock_defect", model=federated_model.pk)


def _fire(federated_model: FederatedModel) -> bool:
    collecting = find_open_round(federated_model)
    if collecting is None or collecting.deadline_at is None or collecting.deadline_at > timezone.now():
        return False
    advance(collecting)
    return True
