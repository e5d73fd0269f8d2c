"""Receiving what a client trained."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.models import F

from fma_core.strategy import Strategy
from fma_django.errors import InvalidValue, NoInitialModel, NotRegistered, UnknownBaseAggregate
from fma_django.models import Client, FederatedModel, ModelAggregate, ModelUpdate, Round
from fma_django.models.model_update import MAX_NUM_EXAMPLES, UpdateStatus
from fma_django.selectors.aggregates import latest_model, newest_aggregate_ids
from fma_django.services.admission import admit, has_answered
from fma_django.services.closing import close_if_due
from fma_django.services.cohorts import start_if_possible
from fma_django.services.configuration import as_configured
from fma_django.services.idempotency import Once, create_once
from fma_django.services.json_values import require_storable
from fma_django.services.round_rows import lock_open_round, read_open_round
from fma_django.services.waiting_updates import ABANDONED, stale_reason
from fma_django.services.weights import (
    StoredWeights,
    WeightsBody,
    settle_spec,
    store_weights,
    update_layout,
    update_spec,
)

MAX_METRICS_BYTES = 64 * 1024


@dataclass(frozen=True)
class UpdateFacts:
    """What a client says of its update, beside the weights. num_examples: its weight, 1 … 2**53."""

    base_aggregate_id: int | None = None
    num_examples: int = 1
    metrics: dict[str, Any] = field(default_factory=dict)


def receive_update(
    federated_model: FederatedModel,
    client: Client,
    body: WeightsBody,
    facts: UpdateFacts = UpdateFacts(),
    *,
    idempotency_key: str | None = None,
) -> ModelUpdate:
    """Take an update into the collecting round of the model.

    The newest update of a client in a round replaces its earlier one; the same update again is the same row. The
    update that meets the model's requirement asks for the aggregation. An update trained from too old a base
    (`furthest_base_agg`) is kept, marked invalid, and does not count.

    Raises NotRegistered, UnknownBaseAggregate, InvalidValue, NoInitialModel, ExperimentEnded, NotSelected, LateUpdate,
    RoundFull, and what `store_weights` and `create_once` raise.
    """
    experiment = _experiment_now(federated_model)
    strategy = experiment.build_strategy()
    base = _check(experiment, client, facts, strategy)
    stored = store_weights(
        body,
        spec=update_spec(experiment),
        layout=update_layout(experiment),
        schema=experiment.update_schema,
    )
    once = None
    if idempotency_key is not None:
        once = Once(
            f"client {client.pk} update", idempotency_key, _fingerprint(federated_model, stored, facts)
        )
    return create_once(
        once, ModelUpdate, lambda: _insert(federated_model, client, base, facts, stored, strategy)
    )


def require_metrics(strategy: Strategy, metrics: Mapping[str, Any]) -> None:
    """Raises InvalidValue when a number is missing, or useless, without which the strategy's rule cannot do."""
    try:
        strategy.check_metrics(metrics)
    except ValueError as error:
        raise InvalidValue(str(error), field="metrics") from error


def _experiment_now(federated_model: FederatedModel) -> FederatedModel:
    """The model as the open round is configured. What cannot be taken anyhow is refused before its body is read."""
    current = read_open_round(federated_model)
    if current is None:
        # It has ended, or was claimed this moment; the answer is that of who holds the round.
        return federated_model
    return as_configured(current)


def _check(
    federated_model: FederatedModel, client: Client, facts: UpdateFacts, strategy: Strategy
) -> ModelAggregate | None:
    _require_registered(federated_model, client)
    if not 1 <= facts.num_examples <= MAX_NUM_EXAMPLES:
        raise InvalidValue(
            f"num_examples must be an integer from 1 to 2**53; found {facts.num_examples}",
            field="num_examples",
        )
    require_storable(facts.metrics, field="metrics", max_bytes=MAX_METRICS_BYTES)
    require_metrics(strategy, facts.metrics)
    if strategy.needs_start and latest_model(federated_model) is None:
        raise NoInitialModel(
            f"model {federated_model.pk} has no weights yet, and its strategy needs some to start from; "
            "its developer must give it an initial model"
        )
    if facts.base_aggregate_id is None:
        return None
    base = ModelAggregate.objects.filter(pk=facts.base_aggregate_id, federated_model=federated_model).first()
    if base is None:
        raise UnknownBaseAggregate(f"model {federated_model.pk} has no aggregate {facts.base_aggregate_id}")
    return base


def _require_registered(federated_model: FederatedModel, client: Client) -> None:
    if not federated_model.clients.filter(pk=client.pk, is_active=True).exists():
        raise NotRegistered(
            f"this client is not registered with model {federated_model.pk}; "
            f"POST models/{federated_model.pk}/register_client/ first"
        )


def _insert(
    federated_model: FederatedModel,
    client: Client,
    base: ModelAggregate | None,
    facts: UpdateFacts,
    stored: StoredWeights,
    checked: Strategy,
) -> ModelUpdate:
    # The round's row before the model's, as everybody does who takes both: two who wait for each other would fail.
    current = lock_open_round(federated_model)
    # What was true before the body travelled may have changed meanwhile.
    experiment = as_configured(current)
    _require_registered(experiment, client)
    _require_unchanged(experiment, checked, facts)
    settle_spec(experiment, stored, is_update=True)
    answers = admit(current, experiment, client, base)
    earlier = current.model_updates.filter(client=client, status=UpdateStatus.PENDING).first()
    if earlier is not None and _says_the_same(earlier, facts, stored):
        return earlier
    refusal = _does_not_count(experiment, current, base)
    is_stale = bool(refusal)
    if earlier is not None and not is_stale:
        earlier.status = UpdateStatus.INVALID
        earlier.status_reason = "the client sent a later one in the same round"
        earlier.save(update_fields=["status", "status_reason"])
    update = ModelUpdate.objects.create(
        federated_model=federated_model,
        client=client,
        round=current,
        base_aggregate=base,
        num_examples=facts.num_examples,
        metrics=facts.metrics,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        status=UpdateStatus.INVALID if is_stale else UpdateStatus.PENDING,
        status_reason=refusal,
    )
    if not is_stale:
        if earlier is None:
            Round.objects.filter(pk=current.pk).update(num_updates=F("num_updates") + 1)
            current.num_updates += 1
        if answers is not None:
            has_answered(answers, current)
        start_if_possible(current)
        close_if_due(current)
    return update


def _does_not_count(experiment: FederatedModel, current: Round, base: ModelAggregate | None) -> str:
    """Why an update trained from this base does not count; "" when it does."""
    if base is not None and base.pk != current.parent_id:
        base.refresh_from_db(fields=["is_abandoned"])
        if base.is_abandoned:
            return ABANDONED
    allowed = newest_aggregate_ids(experiment, experiment.furthest_base_agg)
    is_stale = allowed is not None and (base is None or base.pk not in allowed)
    return stale_reason(experiment) if is_stale else ""


def _require_unchanged(federated_model: FederatedModel, checked: Strategy, facts: UpdateFacts) -> None:
    """Whether the update still is what the strategy asks for; what arrays it has is looked at by `settle_spec`."""
    strategy = federated_model.build_strategy()
    if strategy == checked:
        return
    require_metrics(strategy, facts.metrics)
    if strategy.update_kind != checked.update_kind:
        # Weights taken for differences would go unnoticed, and ruin the model.
        raise InvalidValue(
            f"the model's update_kind became {strategy.update_kind!r} while the update was on its way"
        )


def _says_the_same(earlier: ModelUpdate, facts: UpdateFacts, stored: StoredWeights) -> bool:
    return (
        earlier.sha256 == stored.sha256
        and earlier.base_aggregate_id == facts.base_aggregate_id
        and earlier.num_examples == facts.num_examples
        and earlier.metrics == facts.metrics
    )


def _fingerprint(federated_model: FederatedModel, stored: StoredWeights, facts: UpdateFacts) -> str:
    said = [federated_model.pk, stored.sha256, facts.base_aggregate_id, facts.num_examples, facts.metrics]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
