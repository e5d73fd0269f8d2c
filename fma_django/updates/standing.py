"""The standing of a client in the open round of a model, and the questions that it answers by itself."""

import json
from typing import Annotated, Any, NamedTuple

from fma_django.errors import NoInitialModel, NotRegistered, UnknownBaseAggregate, UnknownModel
from fma_django.models import FederatedModel
from fma_django.record.queries.aggregates import latest_model, newest_aggregate_ids
from fma_django.record.rules import BuiltConfiguration
from fma_django.rounds.waiting_updates import ABANDONED, stale_reason
from fma_django.updates.facts import UpdateFacts


class Standing(NamedTuple):
    """How a client stands in the open round of a model; the columns of a missing row are None.

    spec, configuration: JSON texts; configuration: the one that the round runs with.
    earlier: the accepted update of this client in the round. base: the named aggregate, of this model.
    remembered: the thing that an Idempotency-Key has made.
    """

    client_id: Annotated[Any, "{c.id}"]
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


def require_base(standing: Standing, facts: UpdateFacts) -> None:
    """Raises UnknownBaseAggregate when the model has no aggregate of the id that the facts name."""
    if facts.base_aggregate_id is not None and standing.base_id is None:
        raise UnknownBaseAggregate(
            f"model {standing.federated_model_id} has no aggregate {facts.base_aggregate_id}"
        )


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
        and standing.earlier_base_id == facts.base_aggregate_id
        and standing.earlier_num_examples == facts.num_examples
        and json.loads(standing.earlier_metrics) == facts.metrics
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
