"""The standing of a client in the open round of a model, and the questions that it answers by itself."""

import json
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

from fma_core.aggregation.strategy import Strategy
from fma_django.errors import (
    BaseAggregateRequired,
    NoInitialModel,
    NotRegistered,
    UnknownBaseAggregate,
    UnknownModel,
)
from fma_django.models import FederatedModel, ModelUpdate, Participation, Round
from fma_django.models.stored_json import StoredDecoder
from fma_django.record.queries.aggregates import initial_artifact, latest_model, newest_aggregate_ids
from fma_django.record.rules import BuiltConfiguration
from fma_django.rounds.waiting_updates import ABANDONED, stale_reason
from fma_django.updates.facts import INITIAL, UpdateFacts


class Standing(NamedTuple):
    """How a client stands in the open round of a model; the columns of a missing row are None.

    spec, configuration: JSON texts; configuration: the one that the round runs with.
    earlier: the accepted update of this client in the round. base: the named aggregate, of this model.
    remembered: the thing that an Idempotency-Key has made.
    """

    client_id: Annotated[Any, "{c.id}"]
    public_key: Annotated[str | None, "{c.public_key}"]
    is_registered: Annotated[bool, "{reg.id} IS NOT NULL"]
    federated_model_id: Annotated[Any, "{m.id}"]
    allow_aggregation: Annotated[bool, "{m.allow_aggregation}"]
    spec: Annotated[str | None, "{m.spec}"]
    layout: Annotated[str, "{m.weights_layout}"]
    artifact_id: Annotated[int | None, "{m.current_artifact_id}"]
    round_id: Annotated[Any, "{r.id}"]
    number: Annotated[int, "{r.number}"]
    num_updates: Annotated[int, "{r.num_updates}"]
    num_asked: Annotated[int | None, "{r.num_asked}"]
    clients_counted: Annotated[int | None, "{r.clients_counted}"]
    is_started: Annotated[bool, "{r.started_on} IS NOT NULL"]
    deadline_passed: Annotated[bool | None, "{r.deadline_at} <= %(now)s"]
    parent_id: Annotated[int | None, "{r.parent_id}"]
    configuration: Annotated[str | None, "{v.configuration}"]
    participation_id: Annotated[int | None, "{p.id}"]
    is_chosen: Annotated[bool | None, "{p.is_chosen}"]
    has_joined: Annotated[bool | None, "{p.joined_on} IS NOT NULL"]
    has_answered: Annotated[bool | None, "{p.answered_on} IS NOT NULL"]
    not_chosen_because: Annotated[str | None, "{p.detail}"]
    earlier_id: Annotated[int | None, "{e.id}"]
    earlier_sha256: Annotated[str, "{e.sha256}"]
    earlier_base_id: Annotated[int | None, "{e.base_aggregate_id}"]
    earlier_num_examples: Annotated[int, "{e.num_examples}"]
    earlier_metrics: Annotated[str, "{e.metrics}"]
    base_id: Annotated[int | None, "{b.id}"]
    base_is_abandoned: Annotated[bool | None, "{b.is_abandoned}"]
    remembered_fingerprint: Annotated[str | None, "{k.fingerprint}"] = None
    remembered_id: Annotated[str | None, "{k.object_id}"] = None


def require_registered(standing: Standing) -> None:
    """Raises NotRegistered."""
    if not standing.is_registered:
        raise NotRegistered.of(standing.federated_model_id)


def require_base(standing: Standing, facts: UpdateFacts, rules: BuiltConfiguration) -> None:
    """Require that the named aggregate exists, and that one is named where the strategy depends on it.

    Raises UnknownBaseAggregate and BaseAggregateRequired.
    """
    if facts.base_aggregate_id and standing.base_id is None:
        raise UnknownBaseAggregate(
            f"model {standing.federated_model_id} has no aggregate {facts.base_aggregate_id}"
        )
    if facts.base_aggregate_id is None and _lacks_base(standing, rules.strategy):
        raise BaseAggregateRequired(
            f"the strategy of model {standing.federated_model_id} depends on what an update was trained from: send "
            f"base_aggregate, the id of that aggregate (the newest is {standing.parent_id}), or {INITIAL} for the "
            "initial model; or join the round before training"
        )


def _lacks_base(standing: Standing, strategy: Strategy) -> bool:
    """Whether an update without a base would be measured from a model that it was perhaps not trained from."""
    if standing.parent_id is None or not strategy.needs_base:
        return False
    if strategy.depends_on_ages:
        return True
    # Without an initial model it is measured from the model that the round starts from, which does not go astray.
    return initial_artifact(FederatedModel(pk=standing.federated_model_id)) is not None


def with_base(standing: Standing, facts: UpdateFacts, rules: BuiltConfiguration) -> UpdateFacts:
    """The facts with the base that they leave out, where it follows from the rounds that the client has joined."""
    if facts.base_aggregate_id is not None or standing.round_id is None:
        return facts
    if standing.parent_id is None:
        return replace(facts, base_aggregate_id=INITIAL)
    if standing.has_joined:
        return replace(facts, base_aggregate_id=standing.parent_id)
    if rules.depend_on_base:
        joined = _last_joined(standing)
        if joined is not None:
            return replace(facts, base_aggregate_id=joined.parent_id or INITIAL)
    return facts


def _last_joined(standing: Standing) -> Round | None:
    """The last round that the client joined, if it has sent nothing since: it may still be at work on it.

    Updates to the open round do not count, so that one that is sent again has the same base again.
    """
    of_client = {"client": standing.client_id, "round__federated_model": standing.federated_model_id}
    joined = (
        Participation.objects.filter(**of_client, joined_on__isnull=False)
        .select_related("round")
        .order_by("-round__number")
        .first()
    )
    if joined is None:
        return None
    since = ModelUpdate.objects.filter(
        **of_client, round__number__lt=standing.number, created_on__gt=joined.joined_on
    )
    return None if since.exists() else joined.round


def require_start(standing: Standing, rules: BuiltConfiguration) -> None:
    """Raises NoInitialModel when the strategy needs weights to start from, and the model has none."""
    if not rules.strategy.needs_start or standing.parent_id is not None or standing.artifact_id is not None:
        return
    if latest_model(FederatedModel(pk=standing.federated_model_id)) is None:
        raise NoInitialModel(
            f"model {standing.federated_model_id} has no weights yet, and its strategy needs some to start from; "
            "its developer must give it an initial model"
        )


def configuration_of(standing: Standing) -> str:
    """The configuration of the open round; the model's own when it has no round, or one of before versions."""
    if standing.configuration:
        return standing.configuration
    federated_model = FederatedModel.objects.filter(pk=standing.federated_model_id).first()
    if federated_model is None:
        raise UnknownModel.of(standing.federated_model_id, is_gone=True)
    return json.dumps(federated_model.configuration)


def is_same_update(standing: Standing, facts: UpdateFacts, sha256: str) -> bool:
    """Whether the client's earlier update in the round has these facts and these weights."""
    return (
        standing.earlier_sha256 == sha256
        and standing.earlier_base_id == standing.base_id
        and standing.earlier_num_examples == facts.num_examples
        and json.loads(standing.earlier_metrics, cls=StoredDecoder) == facts.metrics
    )


def invalid_reason(standing: Standing, rules: BuiltConfiguration) -> str:
    """Why an update trained from the named base does not count; "" when it does."""
    base_id, is_newest = standing.base_id, standing.base_id == standing.parent_id
    if base_id is not None and not is_newest and standing.base_is_abandoned:
        return ABANDONED
    furthest = rules.furthest_base_agg
    if furthest is None or (base_id is not None and is_newest):
        return ""
    allowed = newest_aggregate_ids(FederatedModel(pk=standing.federated_model_id), furthest)
    is_stale = allowed is not None and base_id not in allowed
    return stale_reason(rules.experiment) if is_stale else ""
