"""The way in of an update: it is announced before its body travels, and accepted with its body.

    expected = announce(Sender(model_id, client_id=…), facts, size_bytes, coding)
    update = accept(expected, body)

An update is what a server gets most of. It takes one read before its body travels, and one transaction after that:
count it, which holds the round; read again; insert it. All else that a round may need (its start, its end)
is decided by `fma_django.rounds.advance`, when it may be due.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, IntegrityError, OperationalError, connections, transaction
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from fma_core.aggregation.strategy import Strategy
from fma_core.rounds.closing import RoundFacts
from fma_django.clients.registration import client_with
from fma_django.errors import InvalidValue, LateUpdate, NotRegistered, Refused, UnknownClient, UnknownModel
from fma_django.models import FederatedModel, IdempotencyKey, ModelUpdate, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.record.configuration import as_configured
from fma_django.record.idempotency import Once, made_before
from fma_django.record.rules import BuiltConfiguration, rules_of, wanted_of
from fma_django.record.weights import StoredWeights, WeightsBody, settle_spec, store_weights
from fma_django.rounds.advance import advance
from fma_django.rounds.facts import may_be_due
from fma_django.rounds.rows import refuse_ended
from fma_django.updates import limits, sql
from fma_django.updates.admission import admit, mark_answered
from fma_django.updates.expected import Expected, Sender
from fma_django.updates.facts import UpdateFacts, metrics_json_of, require_metrics
from fma_django.updates.one_writer import turn
from fma_django.updates.rates import ask_for_update
from fma_django.updates.signatures import (
    SentSignature,
    keep_first_of_key,
    keep_signature,
    require_signature,
    require_still_signed,
)
from fma_django.updates.standing import (
    Standing,
    configuration_of,
    invalid_reason,
    is_same_update,
    require_base,
    require_registered,
    require_start,
    with_base,
)

__all__ = [
    "Allow",
    "Expected",
    "Sender",
    "SentSignature",
    "UpdateFacts",
    "accept",
    "announce",
    "refuse_before_facts",
]

Allow = Callable[[Expected, int, str], None]

# While an update waits for the lock of the open round, others may close that round, and the next, and so on.
MOST_CLAIMS = 100


def announce(
    sender: Sender,
    facts: UpdateFacts,
    size_bytes: int,
    coding: str = "",
    *,
    idempotency_key: str | None = None,
    signature: SentSignature | None = None,
    allow: Allow = limits.allow,
) -> Expected:
    """Refuse now what can be refused without a look at the body; count what is let in.

    size_bytes, coding: of the body as it travels.
    signature: the client's under the update, which FMA_SIGNED_UPDATES may require.
    allow: asks the limits, last of all. A body that comes in parts asks them at other times than a whole one.

    Raises UnknownClient, UnknownModel, NotRegistered, InvalidValue, SignatureRequired, InvalidSignature,
    NoInitialModel, UnknownBaseAggregate, BaseAggregateRequired, ExperimentEnded, NotSelected, LateUpdate, RoundFull,
    and what `allow` raises.
    ExperimentEnded, NotSelected, LateUpdate and RoundFull do not meet an idempotency_key that was used before: what it
    made is there, whatever has become of its round.
    """
    standing = _standing_before_body(sender, facts)
    require_registered(standing)
    metrics_json = metrics_json_of(facts)
    client_id = _client_id_of(standing)
    signed = require_signature(signature, standing, client_id, sender.federated_model_id, facts)
    configuration = configuration_of(standing)
    rules = rules_of(configuration)
    require_metrics(rules.strategy, facts.metrics)
    require_start(standing, rules)
    sent_base, facts = facts.base_aggregate_id, with_base(standing, facts, rules)
    if facts.base_aggregate_id and facts.base_aggregate_id != sent_base:
        # An aggregate of this model, since a round began with it. Whether it is abandoned is asked with the body.
        standing = standing._replace(base_id=facts.base_aggregate_id)
    require_base(standing, facts, rules)
    spec, layout = wanted_of(configuration, standing.spec, standing.layout)
    expected = Expected(
        client_id=client_id,
        federated_model_id=sender.federated_model_id,
        facts=facts,
        sent_base=sent_base,
        metrics_json=metrics_json,
        idempotency_key=idempotency_key,
        configuration=configuration,
        spec_json=standing.spec,
        spec=spec,
        layout=layout,
        schema=rules.update_schema,
        signed=signed,
    )
    try:
        if standing.round_id is None:
            refuse_ended(sender.federated_model_id)
        else:
            admit(standing, rules)
    except Refused:
        if idempotency_key is None or not _was_used(expected):
            raise
    sender.client_id = expected.client_id
    allow(expected, size_bytes, coding)
    return expected


def refuse_before_facts(sender: Sender, size_bytes: int) -> None:
    """Refuse an update whose facts are not known yet, if any update of the sender would be refused; count nothing.

    Raises UnknownClient, UnknownModel, NotRegistered, ExperimentEnded, NotSelected, RoundFull, RateExceeded.
    """
    standing = _standing_before_body(sender, UpdateFacts())
    require_registered(standing)
    rules = rules_of(configuration_of(standing))
    if standing.round_id is None:
        refuse_ended(sender.federated_model_id)
    else:
        with suppress(LateUpdate):  # the base, which is not known, says whether it is late
            admit(standing, rules)
    ask_for_update(sender.federated_model_id, _client_id_of(standing), size_bytes)


def accept(expected: Expected, body: WeightsBody) -> ModelUpdate:
    """Take the body of an update that was announced.

    The newest update of a client in a round replaces its earlier one; the same update again is the same row. The
    update that meets the model's requirement asks for the aggregation. An update trained from too old a base
    (`furthest_base_agg`) is kept, marked invalid, and does not count.

    Raises what `announce` raises but for the limits, if it has become true meanwhile, what `store_weights` raises,
    SignatureReplayed, IdempotencyKeyReused and IdempotencyKeyExpired.
    """
    stored = store_weights(body, spec=expected.spec, layout=expected.layout, schema=expected.schema)
    once = expected.once(stored.sha256)
    try:
        database = connections[DEFAULT_DB_ALIAS]
        with turn(database), transaction.atomic(), database.cursor() as cursor:
            return _take(cursor, expected, stored, once)
    except (IntegrityError, Refused):
        # Another request with this key was here first; or the conflict is not about the key.
        made = None if once is None else made_before(once, ModelUpdate)
        if made is None:
            raise
        return made


class _UsedBefore(Refused):
    """The Idempotency-Key."""


def _standing_before_body(sender: Sender, facts: UpdateFacts) -> Standing:
    """The standing of an active client with a model that exists.

    Raises UnknownClient and AwaitingApproval (a credential), NotRegistered (an id) and UnknownModel.
    """
    standing = sql.read_standing(
        sender.federated_model_id,
        facts.base_aggregate_id,
        now=timezone.now(),
        client_id=sender.client_id,
        credential_hash=sender.credential_hash,
    )
    if standing is None:
        if sender.credential_hash is not None:
            client_with(sender.credential_hash)  # says why it is not let in
            raise UnknownClient.of_credential()
        raise NotRegistered.of(sender.federated_model_id)
    if standing.federated_model_id is None:
        raise UnknownModel.of(sender.federated_model_id)
    return standing


def _client_id_of(standing: Standing) -> UUID:
    """The client's id, which SQLite gives as text."""
    return standing.client_id if isinstance(standing.client_id, UUID) else UUID(standing.client_id)


def _was_used(expected: Expected) -> bool:
    return IdempotencyKey.objects.filter(scope=expected.scope, key=expected.idempotency_key).exists()


def _take(cursor: CursorWrapper, expected: Expected, stored: StoredWeights, once: Once | None) -> ModelUpdate:
    now = timezone.now()
    standing = _count(cursor, expected, once, now)
    if once is not None and standing.remembered_id is not None:
        raise _UsedBefore("by a request that was here first")
    # What was true before the body travelled may have changed meanwhile.
    require_registered(standing)
    require_still_signed(expected.signed, standing)
    configuration = configuration_of(standing)
    rules = rules_of(configuration)
    require_base(standing, expected.facts, rules)
    is_settled = bool(standing.spec and standing.layout)
    if not is_settled or (configuration, standing.spec) != (expected.configuration, expected.spec_json):
        _settle(standing, expected, stored)
    answered = admit(standing, rules)
    if standing.earlier_id is not None and is_same_update(standing, expected.facts, stored.sha256):
        sql.count_one_less(cursor, standing)
        earlier = ModelUpdate.objects.select_related("round").get(pk=standing.earlier_id)
        if expected.signed is not None:
            keep_first_of_key(expected.signed, earlier)
        return earlier
    refusal = invalid_reason(standing, rules)
    if standing.earlier_id is not None and not refusal:
        ModelUpdate.objects.filter(pk=standing.earlier_id).update(
            status=UpdateStatus.INVALID, status_reason="the client sent a later one in the same round"
        )
    if refusal or standing.earlier_id is not None:
        sql.count_one_less(cursor, standing)
    update = sql.insert_update(
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
    if expected.signed is not None:
        keep_signature(expected.signed, update)
    if once is not None:
        sql.remember(cursor, once, update.pk, now)
    if not refusal:
        if answered is not None:
            mark_answered(answered)
        _advance_if_due(standing, rules)
    return update


def _count(cursor: CursorWrapper, expected: Expected, once: Once | None, now: datetime) -> Standing:
    """Lock the open round by counting one more update, then read how the client stands.

    `num_updates` of the standing is the number before this update.
    """
    for _ in range(MOST_CLAIMS):
        if sql.count_one(cursor, expected.federated_model_id):
            standing = sql.standing_of(
                cursor,
                expected.federated_model_id,
                expected.facts.base_aggregate_id,
                now=now,
                client_id=expected.client_id,
                once=once,
            )
            if standing is None:
                raise NotRegistered.of(expected.federated_model_id)
            return standing._replace(num_updates=standing.num_updates - 1)
        # It was claimed while we waited for its row; the one after it exists since the same commit.
        refuse_ended(expected.federated_model_id)
    raise OperationalError(
        f"{MOST_CLAIMS} rounds were claimed while an update waited for the lock of the open one"
    )


def _settle(standing: Standing, expected: Expected, stored: StoredWeights) -> None:
    """Check the update again by a configuration that changed on its way; settle the spec if it is the first."""
    experiment = as_configured(_round_of(standing))
    _require_unchanged(experiment, rules_of(expected.configuration).strategy, expected.facts)
    if experiment.update_schema != expected.schema:
        raise InvalidValue("the model's update_schema changed while the update was on its way")
    settle_spec(experiment, stored, is_update=True)


def _require_unchanged(experiment: FederatedModel, checked: Strategy, facts: UpdateFacts) -> None:
    """Require that the update still fits the strategy; `settle_spec` looks at its arrays. Raises InvalidValue."""
    strategy = experiment.build_strategy()
    if strategy == checked:
        return
    require_metrics(strategy, facts.metrics)
    if strategy.update_kind != checked.update_kind:
        # Weights taken for differences would go unnoticed, and ruin the model.
        raise InvalidValue(
            f"the model's update_kind became {strategy.update_kind!r} while the update was on its way"
        )


def _advance_if_due(standing: Standing, rules: BuiltConfiguration) -> None:
    """Start or close the round, where one more update makes it possible."""
    if not standing.allow_aggregation:
        return
    if standing.is_started and not _may_be_due(standing, rules):
        return
    advance(_round_of(standing))


def _may_be_due(standing: Standing, rules: BuiltConfiguration) -> bool:
    facts = RoundFacts(
        num_updates=standing.num_updates + (standing.earlier_id is None),
        num_clients=standing.clients_counted or 0,
        num_asked=standing.num_asked,
        deadline_passed=bool(standing.deadline_passed),
        answered=rules.strategy.aggregator.required_clients,
    )
    return may_be_due(rules.hopeful, facts, clients_counted=standing.clients_counted)


def _round_of(standing: Standing) -> Round:
    return Round.objects.select_related("federated_model", "config_version").get(pk=standing.round_id)
