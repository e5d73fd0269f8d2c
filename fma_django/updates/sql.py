"""The statements of an update: read how its client stands, count it, insert it.

SQL and not the ORM: an update is what a server gets most of, and building these statements anew for each one took
fifteen times as long as running them. tests/api/test_query_counts.py counts them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, InterfaceError, NotSupportedError, OperationalError, connections
from django.db.backends.utils import CursorWrapper

from fma_django.models import (
    Client,
    ConfigVersion,
    FederatedModel,
    IdempotencyKey,
    ModelAggregate,
    ModelUpdate,
    Participation,
    Round,
)
from fma_django.models.model_update import ACCEPTED, UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.idempotency import Once
from fma_django.record.sql import Select, Statement, insert, moment, uuid
from fma_django.updates.standing import Standing

_OF_ACTIVE_CLIENT = """FROM {c}
LEFT JOIN {m} ON {m.id} = %(model)s
LEFT JOIN {reg} ON {reg.federatedmodel_id} = {m.id} AND {reg.client_id} = {c.id}
LEFT JOIN {r} ON {r.federated_model_id} = {m.id} AND {r.state} = {collecting}
LEFT JOIN {v} ON {v.id} = {r.config_version_id}
LEFT JOIN {p} ON {p.round_id} = {r.id} AND {p.client_id} = {c.id}
LEFT JOIN {e} ON {e.round_id} = {r.id} AND {e.client_id} = {c.id} AND {e.status} IN {accepted}
LEFT JOIN {b} ON {b.id} = %(base)s AND {b.federated_model_id} = {m.id}
"""
_NAMES: dict[str, Any] = {
    "c": Client,
    "m": FederatedModel,
    "reg": FederatedModel.clients.through,
    "r": Round,
    "v": ConfigVersion,
    "p": Participation,
    "e": ModelUpdate,
    "b": ModelAggregate,
    "collecting": RoundState.COLLECTING,
    "accepted": ACCEPTED,
}
_BY_CREDENTIAL = Select(
    Standing,
    _OF_ACTIVE_CLIENT
    + "WHERE {c.is_active} AND {c.credential_hash} = %(credential_hash)s"
    + " AND ({c.superseded_on} IS NULL OR {c.superseded_on} > %(now)s)",
    prepared_as="fma_standing_by_credential",
    **_NAMES,
)
_BY_ID = Select(
    Standing,
    _OF_ACTIVE_CLIENT + "WHERE {c.is_active} AND {c.id} = %(id)s",
    prepared_as="fma_standing_by_id",
    **_NAMES,
)
_BY_ID_AND_KEY = Select(
    Standing,
    _OF_ACTIVE_CLIENT
    + "LEFT JOIN {k} ON {k.scope} = %(scope)s AND {k.key} = %(key)s WHERE {c.is_active} AND {c.id} = %(id)s",
    prepared_as="fma_standing_by_id_and_key",
    k=IdempotencyKey,
    **_NAMES,
)
_COUNT_ONE = Statement(
    """UPDATE {r} SET {r.num_updates:bare} = {r.num_updates} + 1
    WHERE {r.federated_model_id} = %(model)s AND {r.state} = {collecting}""",
    prepared_as="fma_count_one",
    r=Round,
    collecting=RoundState.COLLECTING,
)
_COUNT_ONE_LESS = Statement(
    "UPDATE {r} SET {r.num_updates:bare} = {r.num_updates} - 1 WHERE {r.id} = %(id)s", r=Round
)
_REMEMBER = insert(IdempotencyKey, prepared_as="fma_remember")
_INSERT = insert(ModelUpdate)
_INSERT_RETURNING = insert(ModelUpdate, prepared_as="fma_insert_update", returning="id")
_COLUMNS = [field.attname for field in ModelUpdate._meta.concrete_fields]


def read_standing(
    federated_model_id: int,
    base_id: int | None,
    *,
    now: datetime,
    client_id: UUID | None = None,
    credential_hash: str | None = None,
) -> Standing | None:
    """As `standing_of`, for the first statement of a request: the connection may have been lost since the last one."""
    database = connections[DEFAULT_DB_ALIAS]

    def read() -> Standing | None:
        with database.cursor() as cursor:
            return standing_of(
                cursor,
                federated_model_id,
                base_id,
                now=now,
                client_id=client_id,
                credential_hash=credential_hash,
            )

    if database.in_atomic_block:
        return read()
    # Instead of asking a kept connection first whether it still is one: that would be one more statement each time.
    database.health_check_done = True  # type: ignore[attr-defined]
    try:
        return read()
    except (InterfaceError, OperationalError, NotSupportedError):
        # Not supported: a prepared statement whose columns a migration has changed.
        database.close()
        return read()


def standing_of(
    cursor: CursorWrapper,
    federated_model_id: int,
    base_id: int | None,
    *,
    now: datetime,
    client_id: UUID | None = None,
    credential_hash: str | None = None,
    once: Once | None = None,
) -> Standing | None:
    """How an active client stands, named by its id or its credential; None when there is none.

    once: the Idempotency-Key to look for.
    """
    parameters = {"now": moment(cursor, now), "model": federated_model_id, "base": base_id}
    if client_id is None:
        parameters["credential_hash"] = credential_hash
        return _BY_CREDENTIAL.one(cursor, parameters)
    parameters["id"] = uuid(cursor, client_id)
    if once is None:
        return _BY_ID.one(cursor, parameters)
    parameters |= {"scope": once.scope, "key": once.key}
    return _BY_ID_AND_KEY.one(cursor, parameters)


def count_one(cursor: CursorWrapper, federated_model_id: int) -> bool:
    """Count one more update of the open round, which locks it; False when there is none."""
    _COUNT_ONE.execute(cursor, {"model": federated_model_id})
    return bool(cursor.rowcount)


def count_one_less(cursor: CursorWrapper, standing: Standing) -> None:
    """Take back what `count_one` counted."""
    _COUNT_ONE_LESS.execute(cursor, {"id": standing.round_id})


def remember(cursor: CursorWrapper, once: Once, made: int, now: datetime) -> None:
    """Write down what an Idempotency-Key has made."""
    key = {
        "scope": once.scope,
        "key": once.key,
        "fingerprint": once.fingerprint,
        "object_id": str(made),
        "created_on": moment(cursor, now),
    }
    _REMEMBER.execute(cursor, key)


def insert_update(
    cursor: CursorWrapper,
    standing: Standing,
    *,
    client_id: UUID,
    sha256: str,
    size_bytes: int,
    num_examples: int,
    metrics: dict[str, Any],
    metrics_json: str,
    refusal: str,
    now: datetime,
) -> ModelUpdate:
    """Insert an update, and give it as it is in the database now. refusal: why it does not count, or ""."""
    row = {
        "federated_model_id": standing.federated_model_id,
        "client_id": client_id,
        "round_id": standing.round_id,
        "base_aggregate_id": standing.base_id,
        "applied_aggregate_id": None,
        "status": (UpdateStatus.INVALID if refusal else UpdateStatus.PENDING).value,
        "status_reason": refusal,
        "num_examples": num_examples,
        "metrics": metrics,
        "verdict": None,
        "verdict_by": None,
        "weight_used": None,
        "step_norm": None,
        "distance": None,
        "sha256": sha256,
        "size_bytes": size_bytes,
        "created_on": now,
    }
    parameters = {
        **row,
        "client_id": uuid(cursor, client_id),
        "metrics": metrics_json,
        "created_on": moment(cursor, now),
    }
    if cursor.db.features.can_return_columns_from_insert:
        _INSERT_RETURNING.execute(cursor, parameters)
        row["id"] = cursor.fetchone()[0]
    else:
        _INSERT.execute(cursor, parameters)
        row["id"] = cursor.lastrowid
    # A third of the time that its constructor takes for names.
    update = ModelUpdate.from_db(cursor.db.alias, _COLUMNS, [row[column] for column in _COLUMNS])
    update.round_number = standing.number
    return update
