"""Receiving what a client trained.

An update is what a server gets most of. It takes one read before its body travels, and one transaction after that:
count it, which holds the round; read again; insert it. What else a round may need (its start, its end, its first
weights) is looked at by the services that decide it, when it may be due.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, IntegrityError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from fma_core.aggregation.strategy import Strategy
from fma_core.arrays.codecs.json_layouts import Layout
from fma_core.arrays.spec import Spec
from fma_core.rounds.closing import RoundFacts
from fma_django.clients.registration import unknown_client
from fma_django.errors import (
    InvalidValue,
    NoInitialModel,
    NotRegistered,
    Refused,
    UnknownBaseAggregate,
    UnknownModel,
)
from fma_django.models import Client, FederatedModel, IdempotencyKey, ModelUpdate, Round
from fma_django.models.model_update import MAX_NUM_EXAMPLES, UpdateStatus
from fma_django.record.configuration import as_configured
from fma_django.record.idempotency import Once, made_before
from fma_django.record.json_values import require_storable
from fma_django.record.queries.aggregates import latest_model, newest_aggregate_ids
from fma_django.record.rules import Rules, rules_of, wanted_of
from fma_django.record.weights import (
    StoredWeights,
    WeightsBody,
    settle_spec,
    store_weights,
)
from fma_django.rounds.advance import advance
from fma_django.rounds.facts import may_be_due
from fma_django.rounds.rows import refuse_ended
from fma_django.rounds.waiting_updates import ABANDONED, stale_reason
from fma_django.updates import sql as update_rows
from fma_django.updates.admission import admit, write_down
from fma_django.updates.sql import Standing

MAX_METRICS_BYTES = 64 * 1024


@dataclass(frozen=True)
class UpdateFacts:
    """What a client says of its update, beside the weights. num_examples: its weight, 1 … 2**53."""

    base_aggregate_id: int | None = None
    num_examples: int = 1
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    """An update whose body may travel: whose it is, what is said of it, and what its body must be."""

    client_id: UUID
    federated_model_id: int
    facts: UpdateFacts
    metrics_json: str
    idempotency_key: str | None
    configuration: str
    spec_json: str | None
    spec: Spec | None
    layout: Layout | None
    schema: Any


def receive_update(
    federated_model: FederatedModel,
    client: Client,
    body: WeightsBody,
    facts: UpdateFacts = UpdateFacts(),
    *,
    idempotency_key: str | None = None,
) -> ModelUpdate:
    """Take an update into the collecting round of the model: `check_before_body`, then `receive_body`."""
    # Django keeps the id that a row was made with, which may have been a text.
    client_id = UUID(str(client.pk))
    expected = check_before_body(
        federated_model.pk, facts, client_id=client_id, idempotency_key=idempotency_key
    )
    return receive_body(expected, body)


def check_before_body(
    federated_model_id: int,
    facts: UpdateFacts,
    *,
    client_id: UUID | None = None,
    credential_hash: str | None = None,
    idempotency_key: str | None = None,
) -> Expected:
    """Refuse now what would be refused without a look at the body. The client is named by its id or its credential.

    Raises UnknownClient, UnknownModel, NotRegistered, InvalidValue, NoInitialModel, UnknownBaseAggregate,
    ExperimentEnded, NotSelected, LateUpdate, RoundFull. The last four do not meet an idempotency_key that was used
    before: what it made is there, whatever has become of its round.
    """
    standing = update_rows.read_standing(
        federated_model_id,
        facts.base_aggregate_id,
        now=timezone.now(),
        client_id=client_id,
        credential_hash=credential_hash,
    )
    if standing is None:
        if credential_hash is not None:
            raise unknown_client()
        raise _not_registered(federated_model_id)
    if standing.federated_model_id is None:
        raise UnknownModel(f"there is no model {federated_model_id}")
    _require_registered(standing)
    metrics_json = _checked_facts(facts)
    configuration = standing.configuration or _live_configuration(federated_model_id)
    rules = rules_of(configuration)
    require_metrics(rules.strategy, facts.metrics)
    _require_start(standing, rules)
    _require_base(standing, facts)
    spec, layout = wanted_of(configuration, standing.spec, standing.layout)
    expected = Expected(
        client_id=standing.client_id if isinstance(standing.client_id, UUID) else UUID(standing.client_id),
        federated_model_id=federated_model_id,
        facts=facts,
        metrics_json=metrics_json,
        idempotency_key=idempotency_key,
        configuration=configuration,
        spec_json=standing.spec,
        spec=spec,
        layout=layout,
        schema=rules.update_schema,
    )
    try:
        if standing.round_id is None:
            refuse_ended(federated_model_id)
        else:
            admit(standing, rules)
    except Refused:
        if idempotency_key is None or not _was_used(expected):
            raise
    return expected


def receive_body(expected: Expected, body: WeightsBody) -> ModelUpdate:
    """Take the body of an update that was expected.

    The newest update of a client in a round replaces its earlier one; the same update again is the same row. The
    update that meets the model's requirement asks for the aggregation. An update trained from too old a base
    (`furthest_base_agg`) is kept, marked invalid, and does not count.

    Raises what `check_before_body` raises, if it has become true meanwhile, what `store_weights` raises,
    IdempotencyKeyReused and IdempotencyKeyExpired.
    """
    stored = store_weights(body, spec=expected.spec, layout=expected.layout, schema=expected.schema)
    once = _once(expected, stored)
    try:
        database = connections[DEFAULT_DB_ALIAS]
        with _turn(database), transaction.atomic(), database.cursor() as cursor:
            return _take(cursor, expected, stored, once)
    except (IntegrityError, Refused):
        # Another request with this key was here first; or the conflict is not about the key.
        made = None if once is None else made_before(once, ModelUpdate)
        if made is None:
            raise
        return made


def require_metrics(strategy: Strategy, metrics: Mapping[str, Any]) -> None:
    """Raises InvalidValue when a number is missing, or useless, without which the strategy's rule cannot do."""
    try:
        strategy.check_metrics(metrics)
    except ValueError as error:
        raise InvalidValue(str(error), field="metrics") from error


class _UsedBefore(Refused):
    """The Idempotency-Key."""


_writers = threading.Lock()
TURN_S = 20


@contextmanager
def _turn(database: BaseDatabaseWrapper) -> Iterator[None]:
    # SQLite has one writer at a time, and the others ask again and again, after longer and longer pauses. Those of one
    # process rather stand in line.
    if database.vendor != "sqlite" or database.in_atomic_block:
        yield
        return
    is_ours = _writers.acquire(timeout=TURN_S)
    try:
        yield
    finally:
        if is_ours:
            _writers.release()


def _take(cursor: CursorWrapper, expected: Expected, stored: StoredWeights, once: Once | None) -> ModelUpdate:
    now = timezone.now()
    standing = _count(cursor, expected, once, now)
    if once is not None and standing.remembered_id is not None:
        raise _UsedBefore("by a request that was here first")
    # What was true before the body travelled may have changed meanwhile.
    _require_registered(standing)
    _require_base(standing, expected.facts)
    configuration = standing.configuration or _live_configuration(expected.federated_model_id)
    rules = rules_of(configuration)
    is_settled = bool(standing.spec and standing.layout)
    if not is_settled or (configuration, standing.spec) != (expected.configuration, expected.spec_json):
        _settle(standing, expected, stored)
    answered = admit(standing, rules)
    if standing.earlier_id is not None and _says_the_same(standing, expected, stored):
        update_rows.count_one_less(cursor, standing)
        return ModelUpdate.objects.select_related("round").get(pk=standing.earlier_id)
    refusal = _does_not_count(standing, rules)
    if standing.earlier_id is not None and not refusal:
        ModelUpdate.objects.filter(pk=standing.earlier_id).update(
            status=UpdateStatus.INVALID, status_reason="the client sent a later one in the same round"
        )
    if refusal or standing.earlier_id is not None:
        update_rows.count_one_less(cursor, standing)
    update = update_rows.insert_update(
        cursor,
        standing,
        client_id=expected.client_id,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        num_examples=expected.facts.num_examples,
        metrics=expected.facts.metrics,
        metrics_json=expected.metrics_json,
        refusal=refusal,
        now=now,
    )
    if once is not None:
        update_rows.remember(cursor, once, update.pk, now)
    if not refusal:
        if answered is not None:
            write_down(answered)
        _go_on(standing, rules)
    return update


def _count(cursor: CursorWrapper, expected: Expected, once: Once | None, now: datetime) -> Standing:
    """How the client stands in the open round, which is this transaction's from here on, and has one more update
    already; `num_updates` is how many it had."""
    for _ in range(10):
        if update_rows.count_one(cursor, expected.federated_model_id):
            standing = update_rows.standing_of(
                cursor,
                expected.federated_model_id,
                expected.facts.base_aggregate_id,
                now=now,
                client_id=expected.client_id,
                once=once,
            )
            if standing is None:
                break
            return standing._replace(num_updates=standing.num_updates - 1)
        # It was claimed while we waited for its row; the one after it exists since the same commit.
        refuse_ended(expected.federated_model_id)
    raise _not_registered(expected.federated_model_id)


def _go_on(standing: Standing, rules: Rules) -> None:
    """Start or close the round, where one more update makes it possible."""
    if not standing.allow_aggregation:
        return
    if standing.is_started and not _may_be_due(standing, rules):
        return
    advance(_round_of(standing))


def _may_be_due(standing: Standing, rules: Rules) -> bool:
    facts = RoundFacts(
        num_updates=standing.num_updates + (standing.earlier_id is None),
        num_clients=standing.clients_counted or 0,
        num_asked=standing.num_asked,
        deadline_passed=bool(standing.deadline_passed),
        answered=rules.strategy.aggregator.required_clients,
    )
    return may_be_due(rules.hopeful, facts, clients_counted=standing.clients_counted)


def _settle(standing: Standing, expected: Expected, stored: StoredWeights) -> None:
    experiment = as_configured(_round_of(standing))
    _require_unchanged(experiment, rules_of(expected.configuration).strategy, expected.facts)
    if experiment.update_schema != expected.schema:
        raise InvalidValue("the model's update_schema changed while the update was on its way")
    settle_spec(experiment, stored, is_update=True)


def _does_not_count(standing: Standing, rules: Rules) -> str:
    """Why an update trained from this base does not count; "" when it does."""
    base_id, is_newest = standing.base_id, standing.base_id == standing.parent_id
    if base_id is not None and not is_newest and standing.base_is_abandoned:
        return ABANDONED
    furthest = rules.furthest_base_agg
    if furthest is None or (base_id is not None and is_newest):
        return ""
    allowed = newest_aggregate_ids(FederatedModel(pk=standing.federated_model_id), furthest)
    is_stale = allowed is not None and base_id not in allowed
    return stale_reason(rules.experiment) if is_stale else ""


def _require_unchanged(experiment: FederatedModel, checked: Strategy, facts: UpdateFacts) -> None:
    """Whether the update still is what the strategy asks for; what arrays it has is looked at by `settle_spec`."""
    strategy = experiment.build_strategy()
    if strategy == checked:
        return
    require_metrics(strategy, facts.metrics)
    if strategy.update_kind != checked.update_kind:
        # Weights taken for differences would go unnoticed, and ruin the model.
        raise InvalidValue(
            f"the model's update_kind became {strategy.update_kind!r} while the update was on its way"
        )


def _require_registered(standing: Standing) -> None:
    if not standing.is_registered:
        raise _not_registered(standing.federated_model_id)


def _not_registered(federated_model_id: int | None) -> NotRegistered:
    return NotRegistered(
        f"this client is not registered with model {federated_model_id}; "
        f"POST models/{federated_model_id}/register_client/ first"
    )


def _require_base(standing: Standing, facts: UpdateFacts) -> None:
    if facts.base_aggregate_id is not None and standing.base_id is None:
        raise UnknownBaseAggregate(
            f"model {standing.federated_model_id} has no aggregate {facts.base_aggregate_id}"
        )


def _require_start(standing: Standing, rules: Rules) -> None:
    if not rules.strategy.needs_start or standing.parent_id is not None or standing.artifact_id is not None:
        return
    if latest_model(FederatedModel(pk=standing.federated_model_id)) is None:
        raise NoInitialModel(
            f"model {standing.federated_model_id} has no weights yet, and its strategy needs some to start from; "
            "its developer must give it an initial model"
        )


def _checked_facts(facts: UpdateFacts) -> str:
    """The metrics as JSON."""
    if not 1 <= facts.num_examples <= MAX_NUM_EXAMPLES:
        raise InvalidValue(
            f"num_examples must be an integer from 1 to 2**53; found {facts.num_examples}",
            field="num_examples",
        )
    return (
        require_storable(facts.metrics, field="metrics", max_bytes=MAX_METRICS_BYTES)
        if facts.metrics
        else "{}"
    )


def _live_configuration(federated_model_id: int) -> str:
    """What a model says that has no open round, or one from before configurations were written down."""
    found = FederatedModel.objects.filter(pk=federated_model_id).first()
    if found is None:
        raise UnknownModel(f"there is no model {federated_model_id} any more")
    return json.dumps(found.configuration)


def _round_of(standing: Standing) -> Round:
    return Round.objects.select_related("federated_model", "config_version").get(pk=standing.round_id)


def _says_the_same(standing: Standing, expected: Expected, stored: StoredWeights) -> bool:
    facts = expected.facts
    return (
        standing.earlier_sha256 == stored.sha256
        and standing.earlier_base_id == facts.base_aggregate_id
        and standing.earlier_num_examples == facts.num_examples
        and json.loads(standing.earlier_metrics) == facts.metrics
    )


def _was_used(expected: Expected) -> bool:
    return IdempotencyKey.objects.filter(scope=_scope(expected), key=expected.idempotency_key).exists()


def _once(expected: Expected, stored: StoredWeights) -> Once | None:
    if expected.idempotency_key is None:
        return None
    facts = expected.facts
    said = [
        expected.federated_model_id,
        stored.sha256,
        facts.base_aggregate_id,
        facts.num_examples,
        facts.metrics,
    ]
    fingerprint = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return Once(_scope(expected), expected.idempotency_key, fingerprint)


def _scope(expected: Expected) -> str:
    return f"client {expected.client_id} update"
