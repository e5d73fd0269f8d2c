"""Creating and changing experiments."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from fma_core.aggregation.strategy import Strategy
from fma_core.errors import InvalidPart, InvalidStrategy
from fma_django import wakeups
from fma_django.clients.consent import set_clients
from fma_django.errors import ExperimentEnded, InvalidValue, ModelHasHistory
from fma_django.evaluations.privacy import remember_new_observer
from fma_django.experiments.artifacts import create_artifact
from fma_django.experiments.lifecycle import switch
from fma_django.experiments.validation import require_fitting, validate
from fma_django.models import Client, ConfigVersion, FederatedModel, ModelArtifact, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.configuration import as_configured, has_begun, record_version
from fma_django.record.idempotency import Once, create_once
from fma_django.record.weights import StoredWeights, WeightsBody, settle_spec, store_weights
from fma_django.rounds.advance import advance
from fma_django.rounds.cohorts import follow_configuration, forget_clients_that_left
from fma_django.rounds.rows import (
    find_open_round,
    lock_open_round,
    lock_unended_rounds,
    open_round,
)
from fma_django.rounds.waiting_updates import drop_updates, drop_updates_that_no_longer_count
from fma_django.updates.facts import require_metrics

INITIAL_VERSION = "1.0.0"


def create_federated_model(
    *,
    developer: User,
    name: str,
    aggregator: str,
    initial_model: WeightsBody | None = None,
    clients: Iterable[Client] = (),
    once: Once | None = None,
    **options: Any,
) -> FederatedModel:
    """A new experiment with its first round open; `initial_model` becomes its artifact 1.0.0.

    options: the other columns of FederatedModel that a developer chooses.
    Raises InvalidPart (naming the field) for a part or parameter that is not known, InvalidStrategy for parts that
    cannot go together, InvalidValue, InvalidSpec, and what `store_weights` raises.
    """
    draft = FederatedModel(developer=developer, name=name, aggregator=aggregator, **options)
    if draft.allow_aggregation:
        draft.started_on = timezone.now()
    validate(draft)
    stored = None
    if initial_model is not None:
        stored = store_weights(initial_model, spec=draft.array_spec, field="initial_model")

    def create() -> FederatedModel:
        draft.save()
        set_clients(draft, clients, by=developer)
        if stored is not None:
            _set_initial(draft, stored)
        record_version(draft, by=developer)
        advance(open_round(draft))
        return draft

    return create_once(once, FederatedModel, create)


def change_federated_model(
    federated_model: FederatedModel, changes: Mapping[str, Any], *, by: User | None = None
) -> FederatedModel:
    """Change columns of an experiment (and `clients`); what now makes its round due is acted on at once.

    What belongs to its configuration becomes a new version. A round that has begun on a running experiment keeps the
    version that it began with, and the next one takes the new; otherwise the open round takes it now.
    The spec may change until the first weights are published, so that a first update of the wrong shape does not bind
    the model for ever; what waits in the open round no longer counts then.
    by: who does it, for the history. Raises as `create_federated_model`, and ModelHasHistory, ExperimentEnded.
    """
    with transaction.atomic():
        current = find_open_round(federated_model)
        if current is None:  # no round is held, and versions are numbered
            FederatedModel.objects.select_for_update().filter(pk=federated_model.pk).first()
        federated_model.refresh_from_db()
        columns = dict(changes)
        clients = columns.pop("clients", None)
        allow_aggregation = columns.pop("allow_aggregation", None)
        if current is None and allow_aggregation:
            raise ExperimentEnded(
                f"the experiment has ended ({federated_model.end_reason}); start it again first",
                field="allow_aggregation",
            )
        respecified = "spec" in columns and columns["spec"] != federated_model.spec
        if respecified:
            if _has_weights(federated_model):
                raise ModelHasHistory("the spec of a model cannot change once it has weights", field="spec")
            columns["weights_layout"] = ""
        developer = columns.get("developer", federated_model.developer)
        if developer != federated_model.developer:
            remember_new_observer(federated_model, developer)
        federated_model.configure(columns)
        validate(federated_model)
        # Only what was asked for: another transaction may be changing the current artifact.
        federated_model.save(update_fields=[*columns, "last_modified"])
        if clients is not None:
            set_clients(federated_model, clients, by=by)
        version = record_version(federated_model, by=by)
        if current is not None:
            _apply(current, version, respecified=respecified, allow_aggregation=allow_aggregation)
    federated_model.refresh_from_db()
    return federated_model


def _apply(
    current: Round, version: ConfigVersion, *, respecified: bool, allow_aggregation: bool | None
) -> None:
    """Let the open round follow a change as far as it may, and act on what became due."""
    if allow_aggregation is False:
        switch(current, on=False)
    before = as_configured(current)
    current.federated_model.refresh_from_db()
    if not current.federated_model.allow_aggregation or not has_begun(current):
        current.config_version = version
        current.save(update_fields=["config_version"])
        follow_configuration(current, before)
    experiment = as_configured(current)
    if respecified:
        drop_updates(current, "the spec of the model was changed after it had been sent")
    elif _asked_of_clients(experiment) != _asked_of_clients(before):
        drop_updates(current, "what the model's strategy asks of updates was changed after it had been sent")
    _drop_updates_without_metrics(current, experiment.build_strategy())
    drop_updates_that_no_longer_count(experiment, current)
    forget_clients_that_left(current)
    if allow_aggregation:
        switch(current, on=True)
    advance(current, may_end=not has_begun(current))


def delete_federated_model(federated_model: FederatedModel) -> None:
    """Remove an experiment with all its rows; the files that nothing else refers to are swept.

    Updates and workers that are under way find that it is gone.
    """
    with transaction.atomic():
        lock_unended_rounds(federated_model)
        FederatedModel.objects.select_for_update().filter(pk=federated_model.pk).first()
        wakeups.send(wakeups.of_model(federated_model.pk))
        federated_model.delete()


def set_initial_model(
    federated_model: FederatedModel, body: WeightsBody, *, once_key: tuple[str, str] | None = None
) -> ModelArtifact:
    """Give a model without history its first weights, as artifact 1.0.0.

    once_key: (scope, key) of the request. Raises ModelHasHistory, and what `store_weights` raises.
    """
    if once_key is None:  # with a key it may be the repetition of what made them
        require_no_weights(federated_model)
    stored = store_weights(body, spec=federated_model.array_spec, field="initial_model")
    once = None if once_key is None else Once(*once_key, fingerprint=stored.sha256)

    def create() -> ModelArtifact:
        collecting = lock_open_round(federated_model)
        require_no_weights(federated_model)
        settle_spec(federated_model, stored)
        artifact = _set_initial(federated_model, stored)
        # Updates may wait for nothing but a model to start from.
        advance(collecting)
        return artifact

    return create_once(once, ModelArtifact, create)


def require_no_weights(federated_model: FederatedModel) -> None:
    """Raises ModelHasHistory."""
    if federated_model.aggregates.exists() or federated_model.artifacts.exists():
        raise ModelHasHistory(f"model {federated_model.pk} has weights already; publish an aggregate instead")


def _set_initial(federated_model: FederatedModel, stored: StoredWeights) -> ModelArtifact:
    require_fitting(federated_model.build_strategy(), stored.spec)
    if federated_model.spec is None or not federated_model.weights_layout:
        federated_model.spec = stored.spec.to_json()
        federated_model.weights_layout = stored.layout
        federated_model.save(update_fields=["spec", "weights_layout"])
    return create_artifact(
        federated_model, version=INITIAL_VERSION, sha256=stored.sha256, size_bytes=stored.size_bytes
    )


def _asked_of_clients(federated_model: FederatedModel) -> Any:
    """The kind and arrays of update that the model's strategy takes; None while any will do, or a plugin is gone."""
    try:
        strategy = federated_model.build_strategy()
        spec = federated_model.array_spec
        arrays = None if spec is None else strategy.update_spec(spec)
        return strategy.update_kind, arrays
    except (InvalidPart, InvalidStrategy):
        return None


def _drop_updates_without_metrics(current: Round, strategy: Strategy) -> None:
    if not strategy.aggregator.required_metrics:
        return
    for update in current.model_updates.filter(status=UpdateStatus.PENDING):
        try:
            require_metrics(strategy, update.metrics)
        except InvalidValue as error:
            reason = f"the model's aggregator was changed after it had been sent: {error.message}"
            drop_updates(current, reason, only=[update.pk])


def _has_weights(federated_model: FederatedModel) -> bool:
    return (
        federated_model.artifacts.exists()
        or federated_model.aggregates.exists()
        or federated_model.rounds.filter(state=RoundState.AGGREGATING).exists()
    )
