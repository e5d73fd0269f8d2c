"""The rows of rounds: opening one, holding one, and the one function that moves one."""

from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import QuerySet

from fma_core.rounds.life import TRANSITIONS
from fma_django.errors import ExperimentEnded, InvalidTransition, UnknownModel
from fma_django.models import ConfigVersion, FederatedModel, ModelAggregate, Round
from fma_django.models.round import ENDED, RoundState
from fma_django.record.configuration import record_version
from fma_django.record.queries.aggregates import latest_aggregate
from fma_django.record.queries.joined_rows import JoinedRows
from fma_django.record.sql import Statement

log = structlog.get_logger(__name__)

_READ = JoinedRows(
    """FROM {r} JOIN {m} ON {m.id} = {r.federated_model_id} LEFT JOIN {v} ON {v.id} = {r.config_version_id}
    LEFT JOIN {p} ON {p.id} = {r.parent_id} WHERE {r.id} = %(id)s""",
    r=Round,
    m=FederatedModel,
    v=ConfigVersion,
    p=ModelAggregate,
)
_LOCK = Statement("SELECT {r.id} FROM {r} WHERE {r.id} = %(id)s", r=Round)
_LOCK_OPEN = Statement(
    "SELECT {r.id} FROM {r} WHERE {r.federated_model_id} = %(id)s AND {r.state} = {collecting}",
    r=Round,
    collecting=RoundState.COLLECTING,
)


def open_round(federated_model: FederatedModel) -> Round:
    """The next round of a model that has none collecting."""
    last = federated_model.rounds.order_by("-number").values_list("number", flat=True).first()
    return _opened(
        Round.objects.create(
            federated_model=federated_model,
            number=(last or 0) + 1,
            parent=latest_aggregate(federated_model),
            config_version=record_version(federated_model),
        )
    )


def open_round_after(claimed: Round) -> Round:
    """The next round, beside one that was collecting until now; it goes on from what that one makes."""
    return _opened(
        Round.objects.create(
            federated_model=claimed.federated_model,
            number=claimed.number + 1,
            parent=claimed.parent,
            config_version=record_version(claimed.federated_model),
        )
    )


def read_round(round_id: int) -> Round | None:
    """A round with its model, its configuration and its parent."""
    with connection.cursor() as cursor:
        rows = _READ.one(cursor, {"id": round_id})
    if rows is None:
        return None
    read: Round
    read, read.federated_model, read.config_version, read.parent = rows
    return read


def lock_round(round_id: int) -> Round | None:
    """The same, and nobody else changes the round until this transaction ends."""
    # Read after the lock, and not with it: PostgreSQL joins what was there before it waited, and another transaction
    # may have changed the model meanwhile, or published what this round starts from.
    return read_round(round_id) if _locked(_LOCK, round_id) else None


def lock_open_round(federated_model: FederatedModel) -> Round:
    """The collecting round of a model, with its model and its configuration as they are now, which nobody else changes
    until this transaction ends. Raises ExperimentEnded when there is none, and UnknownModel.
    """
    open_one = find_open_round(federated_model)
    if open_one is not None:
        return open_one
    refuse_ended(federated_model.pk)
    raise UnknownModel.of(federated_model.pk, is_gone=True)


def refuse_ended(federated_model_id: int) -> None:
    """Raises ExperimentEnded, and UnknownModel when it is gone; a model that goes on has an open round."""
    model = FederatedModel.objects.filter(pk=federated_model_id).first()
    if model is None:
        raise UnknownModel.of(federated_model_id, is_gone=True)
    if model.ended_on is not None:
        raise ExperimentEnded(
            f"the experiment of model {model.pk} ended on {model.ended_on:%Y-%m-%d %H:%M} UTC ({model.end_reason})",
            reason=model.end_reason,
        )


def find_open_round(federated_model: FederatedModel) -> Round | None:
    """As `lock_open_round`; None when the experiment has ended."""
    for _ in range(10):
        locked = _locked(_LOCK_OPEN, federated_model.pk)
        if locked is not None:
            return read_round(locked)
        # It was claimed while we waited for its row; the one after it exists since the same commit.
        if FederatedModel.objects.filter(pk=federated_model.pk, ended_on__isnull=False).exists():
            return None
    return None


def read_open_round(federated_model: FederatedModel) -> Round | None:
    """The collecting round as it is at this moment; None when the experiment has ended."""
    return (
        _open(federated_model).select_related("federated_model__current_artifact", "config_version").first()
    )


def lock_unended_rounds(federated_model: FederatedModel) -> None:
    """Keep every round of a model that has not ended, and all that belongs to it, as it is until this transaction ends.

    A claim that we waited for has opened another round, which nobody sees before that claim has committed: look again
    until there is none.
    """
    locked: set[int] | None = None
    while True:
        unended = set(
            Round.objects.select_for_update()
            .filter(federated_model=federated_model)
            .exclude(state__in=ENDED)
            .order_by("pk")
            .values_list("pk", flat=True)
        )
        if unended == locked:
            return
        locked = unended


def move(moved: Round, to: RoundState, **changes: object) -> None:
    """Move a round by compare-and-set. Raises InvalidTransition when the table or somebody else forbids it."""
    if to not in TRANSITIONS[moved.state]:
        raise InvalidTransition(f"a {moved.state} round cannot become {to.value}", round_id=moved.pk)
    count = Round.objects.filter(pk=moved.pk, state=moved.state).update(state=to, **changes)
    if count != 1:
        raise InvalidTransition(f"round {moved.pk} is no longer {moved.state}", round_id=moved.pk)
    if to == RoundState.CANCELLED:
        log_of_round("round_cancelled", moved)


def log_of_round(event: str, of: Round, *, level: str = "info", **facts: object) -> None:
    """Log what became of a round, once the transaction that made it so has committed."""
    said = {**ids_of(of), **facts}
    transaction.on_commit(lambda: getattr(log, level)(event, **said))


def ids_of(named: Round) -> dict[str, object]:
    """The names of a round in every event of the log."""
    return {"model": named.federated_model_id, "round": named.number, "round_id": named.pk}


def _opened(opened: Round) -> Round:
    log_of_round("round_opened", opened)
    return opened


def _locked(statement: Statement, row_id: int) -> Any:
    """The id of the row that is this transaction's from here on, if there is one."""
    # SQLite has no locks of rows: the transaction is the only writer.
    lock = " FOR UPDATE" if connection.features.has_select_for_update else ""
    with connection.cursor() as cursor:
        cursor.execute(statement.text + lock, {"id": row_id})
        row = cursor.fetchone()
    return None if row is None else row[0]


def _open(federated_model: FederatedModel) -> QuerySet[Round]:
    return Round.objects.filter(federated_model=federated_model, state=RoundState.COLLECTING)
