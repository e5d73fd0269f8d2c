"""The rows of an update: what has to be known before one is taken, and writing it down.

SQL and not the ORM: an update is what a server gets most of, and building these statements anew for each one took
fifteen times as long as running them. tests/api/test_query_counts.py counts them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import InterfaceError, OperationalError, connection

from fma_django.models import ModelUpdate, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.services.idempotency import Once


class Standing(NamedTuple):
    """How a client stands in the open round of a model; what is of a row that there is not is None.

    spec, configuration: JSON texts; configuration: what the round runs with.
    earlier: the accepted update of this client in the round. base: the aggregate that is named, of this model.
    remembered: what an Idempotency-Key stands for.
    """

    client_id: Any
    is_registered: bool
    federated_model_id: int | None
    allow_aggregation: bool
    spec: str | None
    layout: str
    artifact_id: int | None
    round_id: Any
    number: int
    num_updates: int
    num_asked: int | None
    clients_counted: int | None
    is_started: bool
    is_ready: bool
    deadline_passed: bool | None
    parent_id: int | None
    configuration: str | None
    participation_id: int | None
    is_chosen: bool | None
    has_answered: bool | None
    not_chosen_because: str | None
    earlier_id: int | None
    earlier_sha256: str
    earlier_base_id: int | None
    earlier_num_examples: int
    earlier_metrics: str
    base_id: int | None
    base_is_abandoned: bool | None
    remembered_fingerprint: str | None = None
    remembered_id: str | None = None


_STANDING = """
SELECT c.id, reg.id IS NOT NULL, m.id, m.allow_aggregation, m.spec, m.weights_layout, m.current_artifact_id,
    r.id, r.number, r.num_updates, r.num_asked, r.clients_counted, r.started_on IS NOT NULL, r.ready_on IS NOT NULL,
    r.deadline_at <= %s, r.parent_id, v.configuration,
    p.id, p.is_chosen, p.answered_on IS NOT NULL, p.detail,
    e.id, e.sha256, e.base_aggregate_id, e.num_examples, e.metrics, b.id, b.is_abandoned{remembered}
FROM fma_django_client c
LEFT JOIN fma_django_federatedmodel m ON m.id = %s
LEFT JOIN fma_django_federatedmodel_clients reg ON reg.federatedmodel_id = m.id AND reg.client_id = c.id
LEFT JOIN fma_django_round r ON r.federated_model_id = m.id AND r.state = 'collecting'
LEFT JOIN fma_django_configversion v ON v.id = r.config_version_id
LEFT JOIN fma_django_participation p ON p.round_id = r.id AND p.client_id = c.id
LEFT JOIN fma_django_modelupdate e ON e.round_id = r.id AND e.client_id = c.id AND e.status IN (0, 1, 2)
LEFT JOIN fma_django_modelaggregate b ON b.id = %s AND b.federated_model_id = m.id{join}
WHERE c.is_active AND c.{by} = %s
"""
_REMEMBERED = {
    "remembered": ", k.fingerprint, k.object_id",
    "join": "\nLEFT JOIN fma_django_idempotencykey k ON k.scope = %s AND k.key = %s",
}
_FORGOTTEN = {"remembered": "", "join": ""}
_BY_CREDENTIAL = _STANDING.format(by="credential_hash", **_FORGOTTEN)
_BY_ID = _STANDING.format(by="id", **_FORGOTTEN)
_BY_ID_AND_KEY = _STANDING.format(by="id", **_REMEMBERED)


def standing_of(
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
    asked = [connection.ops.adapt_datetimefield_value(now), federated_model_id, base_id]
    if client_id is None:
        return _standing(_BY_CREDENTIAL, [*asked, credential_hash])
    if once is None:
        return _standing(_BY_ID, [*asked, _uuid(client_id)])
    return _standing(_BY_ID_AND_KEY, [*asked, once.scope, once.key, _uuid(client_id)])


def count_one(federated_model_id: int) -> bool:
    """Count one more update of the open round, which nobody else changes then until this transaction ends; whether
    there is one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE fma_django_round SET num_updates = num_updates + 1 "
            "WHERE federated_model_id = %s AND state = 'collecting'",
            [federated_model_id],
        )
        return bool(cursor.rowcount)


def count_one_less(standing: Standing) -> None:
    """Take it back."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE fma_django_round SET num_updates = num_updates - 1 WHERE id = %s", [standing.round_id]
        )


def remember(once: Once, made: int, now: datetime) -> None:
    """What an Idempotency-Key has made."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO fma_django_idempotencykey (scope, key, fingerprint, object_id, created_on) "
            "VALUES (%s, %s, %s, %s, %s)",
            [
                once.scope,
                once.key,
                once.fingerprint,
                str(made),
                connection.ops.adapt_datetimefield_value(now),
            ],
        )


def insert_update(
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
    """The update, with its round, of which the number alone is loaded. refusal: why it does not count, or ""."""
    said: dict[str, Any] = {
        "federated_model_id": standing.federated_model_id,
        "client_id": client_id,
        "round_id": standing.round_id,
        "base_aggregate_id": standing.base_id,
        "applied_aggregate_id": None,
        "sha256": sha256,
        "size_bytes": size_bytes,
        "num_examples": num_examples,
        "metrics": metrics,
        "status": UpdateStatus.INVALID.value if refusal else UpdateStatus.PENDING.value,
        "status_reason": refusal,
        "created_on": now,
    }
    stored = {
        **said,
        "client_id": _uuid(client_id),
        "metrics": metrics_json,
        "created_on": connection.ops.adapt_datetimefield_value(now),
    }
    returns_id = connection.features.can_return_columns_from_insert
    with connection.cursor() as cursor:
        cursor.execute(_INSERT_RETURNING if returns_id else _INSERT, [stored[name] for name in _COLUMNS])
        pk = cursor.fetchone()[0] if returns_id else cursor.lastrowid
    said["id"] = pk
    update = ModelUpdate.from_db(connection.alias, _FIELDS, [said[name] for name in _FIELDS])
    update.round = Round.from_db(connection.alias, ("id", "number"), (standing.round_id, standing.number))
    return update


_FIELDS = tuple(field.attname for field in ModelUpdate._meta.concrete_fields)
_COLUMNS = (
    "federated_model_id",
    "client_id",
    "round_id",
    "base_aggregate_id",
    "status",
    "status_reason",
    "num_examples",
    "metrics",
    "sha256",
    "size_bytes",
    "created_on",
)
_INSERT = """
INSERT INTO fma_django_modelupdate (federated_model_id, client_id, round_id, base_aggregate_id, status, status_reason,
    num_examples, metrics, sha256, size_bytes, created_on)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""
_INSERT_RETURNING = f"{_INSERT} RETURNING id"


def _standing(statement: str, asked: list[Any]) -> Standing | None:
    row = _read(statement, asked)
    return None if row is None else Standing(*row)


def _read(statement: str, asked: list[Any]) -> tuple[Any, ...] | None:
    if connection.in_atomic_block:
        return _execute(statement, asked)
    # Instead of asking a kept connection first whether it still is one: that would be one more statement each time.
    connection.health_check_done = True  # type: ignore[attr-defined]
    try:
        return _execute(statement, asked)
    except (InterfaceError, OperationalError):
        connection.close()
        return _execute(statement, asked)


def _execute(statement: str, asked: list[Any]) -> tuple[Any, ...] | None:
    with connection.cursor() as cursor:
        cursor.execute(statement, asked)
        row: tuple[Any, ...] | None = cursor.fetchone()
        return row


def _uuid(value: UUID) -> UUID | str:
    return value if connection.features.has_native_uuid_field else value.hex
