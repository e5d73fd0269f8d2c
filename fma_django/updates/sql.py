"""The statements of an update: read how its client stands, count it, insert it.

SQL and not the ORM: an update is what a server gets most of, and building these statements anew for each one took
fifteen times as long as running them. Their parameters have names, because Django's SQLite backend looks for `%s` by a
regular expression, which took a fifth of a statement's time. tests/api/test_query_counts.py counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db import DEFAULT_DB_ALIAS, InterfaceError, NotSupportedError, OperationalError, connections
from django.db.backends.utils import CursorWrapper

from fma_django.models import ModelUpdate
from fma_django.models.model_update import UpdateStatus
from fma_django.record.idempotency import Once
from fma_django.updates.standing import Standing

_STANDING = """
SELECT c.id, reg.id IS NOT NULL, m.id, m.allow_aggregation, m.spec, m.weights_layout, m.current_artifact_id,
    r.id, r.number, r.num_updates, r.num_asked, r.clients_counted, r.started_on IS NOT NULL, r.ready_on IS NOT NULL,
    r.deadline_at <= %(now)s, r.parent_id, v.configuration,
    p.id, p.is_chosen, p.answered_on IS NOT NULL, p.detail,
    e.id, e.sha256, e.base_aggregate_id, e.num_examples, e.metrics, b.id, b.is_abandoned{remembered}
FROM fma_django_client c
LEFT JOIN fma_django_federatedmodel m ON m.id = %(model)s
LEFT JOIN fma_django_federatedmodel_clients reg ON reg.federatedmodel_id = m.id AND reg.client_id = c.id
LEFT JOIN fma_django_round r ON r.federated_model_id = m.id AND r.state = 'collecting'
LEFT JOIN fma_django_configversion v ON v.id = r.config_version_id
LEFT JOIN fma_django_participation p ON p.round_id = r.id AND p.client_id = c.id
LEFT JOIN fma_django_modelupdate e ON e.round_id = r.id AND e.client_id = c.id AND e.status IN (0, 1, 2)
LEFT JOIN fma_django_modelaggregate b ON b.id = %(base)s AND b.federated_model_id = m.id{join}
WHERE c.is_active AND c.{by} = %({by})s
"""
_REMEMBERED = {
    "remembered": ", k.fingerprint, k.object_id",
    "join": "\nLEFT JOIN fma_django_idempotencykey k ON k.scope = %(scope)s AND k.key = %(key)s",
}
_FORGOTTEN = {"remembered": "", "join": ""}
_BY_CREDENTIAL = _STANDING.format(by="credential_hash", **_FORGOTTEN)
_BY_ID = _STANDING.format(by="id", **_FORGOTTEN)
_BY_ID_AND_KEY = _STANDING.format(by="id", **_REMEMBERED)


# By the driver's own connection: a new one knows none of them.
_prepared: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


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
    parameters = {"now": _moment(cursor, now), "model": federated_model_id, "base": base_id}
    if client_id is None:
        parameters["credential_hash"] = credential_hash
        _execute(cursor, "fma_standing_by_credential", _BY_CREDENTIAL, parameters)
    elif once is None:
        parameters["id"] = _uuid(cursor, client_id)
        _execute(cursor, "fma_standing_by_id", _BY_ID, parameters)
    else:
        parameters |= {"id": _uuid(cursor, client_id), "scope": once.scope, "key": once.key}
        _execute(cursor, "fma_standing_by_id_and_key", _BY_ID_AND_KEY, parameters)
    row = cursor.fetchone()
    return None if row is None else Standing(*row)


def count_one(cursor: CursorWrapper, federated_model_id: int) -> bool:
    """Count one more update of the open round, which nobody else changes then until this transaction ends; whether
    there is one."""
    _execute(cursor, "fma_count_one", _COUNT_ONE, {"model": federated_model_id})
    return bool(cursor.rowcount)


def count_one_less(cursor: CursorWrapper, standing: Standing) -> None:
    """Take one update back from the count of the round."""
    cursor.execute(
        "UPDATE fma_django_round SET num_updates = num_updates - 1 WHERE id = %s", [standing.round_id]
    )


def remember(cursor: CursorWrapper, once: Once, made: int, now: datetime) -> None:
    """Keep the id of the update that an Idempotency-Key has made."""
    parameters = {
        "scope": once.scope,
        "key": once.key,
        "fingerprint": once.fingerprint,
        "object_id": str(made),
        "created_on": _moment(cursor, now),
    }
    _execute(cursor, "fma_remember", _REMEMBER, parameters)


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
    """The update, as it is in the database now. refusal: why it does not count, or ""."""
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
        "sha256": sha256,
        "size_bytes": size_bytes,
        "created_on": now,
    }
    parameters = {
        **row,
        "client_id": _uuid(cursor, client_id),
        "metrics": metrics_json,
        "created_on": _moment(cursor, now),
    }
    returns_id = cursor.db.features.can_return_columns_from_insert
    _execute(cursor, "fma_insert_update", _INSERT_RETURNING if returns_id else _INSERT, parameters)
    row["id"] = cursor.fetchone()[0] if returns_id else cursor.lastrowid
    # A third of the time that its constructor takes for names.
    update = ModelUpdate.from_db(cursor.db.alias, _COLUMNS, [row[column] for column in _COLUMNS])
    update.round_number = standing.number
    return update


_COLUMNS = [field.attname for field in ModelUpdate._meta.concrete_fields]
_COUNT_ONE = """
UPDATE fma_django_round SET num_updates = num_updates + 1
WHERE federated_model_id = %(model)s AND state = 'collecting'"""
_REMEMBER = """
INSERT INTO fma_django_idempotencykey (scope, key, fingerprint, object_id, created_on)
VALUES (%(scope)s, %(key)s, %(fingerprint)s, %(object_id)s, %(created_on)s)"""
_INSERT = """
INSERT INTO fma_django_modelupdate (federated_model_id, client_id, round_id, base_aggregate_id, applied_aggregate_id,
    status, status_reason, num_examples, metrics, sha256, size_bytes, created_on)
VALUES (%(federated_model_id)s, %(client_id)s, %(round_id)s, %(base_aggregate_id)s, %(applied_aggregate_id)s,
    %(status)s, %(status_reason)s, %(num_examples)s, %(metrics)s, %(sha256)s, %(size_bytes)s, %(created_on)s)"""
_INSERT_RETURNING = f"{_INSERT} RETURNING id"


def _execute(cursor: CursorWrapper, name: str, statement: str, parameters: Mapping[str, Any]) -> None:
    """On PostgreSQL prepared once for each connection: planning so many joins takes ten times as long as running them,
    and planning a write nearly as long. Not behind a pooler that changes connections, which Django is parameters of by
    DISABLE_SERVER_SIDE_CURSORS."""
    database = cursor.db
    if database.vendor != "postgresql" or database.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        cursor.execute(statement, parameters)
        return
    prepared = _prepared.setdefault(database.connection, set())
    if name not in prepared:
        numbered = statement % {key: f"${number}" for number, key in enumerate(parameters, 1)}
        cursor.execute(f"PREPARE {name} AS {numbered}")
        prepared.add(name)
    cursor.execute(f"EXECUTE {name} ({', '.join(f'%({key})s' for key in parameters)})", parameters)


def _moment(cursor: CursorWrapper, moment: datetime) -> Any:
    database = cursor.db
    if not database.features.supports_timezones:  # as Django does, which asks its settings each time
        moment = moment.astimezone(database.timezone).replace(tzinfo=None)
    return database.ops.adapt_datetimefield_value(moment)


def _uuid(cursor: CursorWrapper, value: UUID) -> UUID | str:
    return value if cursor.db.features.has_native_uuid_field else value.hex
