"""The life of an experiment: started, paused, resumed, cancelled, rewound, cloned."""

from collections.abc import Iterable

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from fma_django import wakeups
from fma_django.clients.consent import set_clients
from fma_django.errors import InvalidTransition, InvalidValue
from fma_django.experiments.artifacts import create_artifact
from fma_django.models import Client, FederatedModel, ModelAggregate, ModelArtifact, Round
from fma_django.models.round import RoundState
from fma_django.record.configuration import record_version
from fma_django.record.idempotency import Once, create_once
from fma_django.record.queries.aggregates import initial_artifact
from fma_django.rounds.advance import advance
from fma_django.rounds.ending import end_experiment, reason_to_end
from fma_django.rounds.facts import is_aggregating
from fma_django.rounds.rows import find_open_round, lock_open_round, move, open_round
from fma_django.rounds.waiting_updates import drop_updates


def start(federated_model: FederatedModel) -> FederatedModel:
    """Let the rounds of an experiment run, for the first time or again after a pause; what is due happens at once.

    One that has ended goes on with a new round. Raises InvalidTransition while its policy says that it is over.
    """
    with transaction.atomic():
        _run(find_open_round(federated_model) or _begin_again(federated_model))
    federated_model.refresh_from_db()
    return federated_model


def resume(federated_model: FederatedModel) -> FederatedModel:
    """As `start`, but one that has ended stays ended. Raises ExperimentEnded."""
    with transaction.atomic():
        _run(lock_open_round(federated_model))
    federated_model.refresh_from_db()
    return federated_model


def pause(federated_model: FederatedModel) -> FederatedModel:
    """Close no round and ask nobody until it is resumed; what is sent waits, and deadlines stand still.

    A round that is being aggregated is published. Raises ExperimentEnded.
    """
    with transaction.atomic():
        switch(lock_open_round(federated_model), on=False)
    federated_model.refresh_from_db()
    return federated_model


def switch(collecting: Round, *, on: bool) -> None:
    """Set `allow_aggregation` of the model of a locked collecting round, and what follows from it for its clock."""
    federated_model = collecting.federated_model
    if federated_model.allow_aggregation == on:
        return
    now = timezone.now()
    federated_model.allow_aggregation = on
    if on:
        if collecting.deadline_at is not None and federated_model.paused_on is not None:
            collecting.deadline_at += now - federated_model.paused_on
            collecting.save(update_fields=["deadline_at"])
        federated_model.paused_on = None
        federated_model.started_on = federated_model.started_on or now
    else:
        federated_model.paused_on = now
    federated_model.save(update_fields=["allow_aggregation", "started_on", "paused_on"])
    wakeups.send(wakeups.of_model(federated_model.pk))


def cancel_experiment(federated_model: FederatedModel) -> FederatedModel:
    """End an experiment now. What waits does not count; what is being aggregated may still be published.

    Raises ExperimentEnded when it has ended already.
    """
    with transaction.atomic():
        end_experiment(federated_model, "cancelled", collecting=lock_open_round(federated_model))
        wakeups.send(wakeups.of_model(federated_model.pk))
    federated_model.refresh_from_db()
    return federated_model


def rewind(
    federated_model: FederatedModel, aggregate: ModelAggregate, *, once: Once | None = None
) -> ModelAggregate:
    """Go on from an earlier aggregate; the new aggregate, which is a copy of it and the newest of the model.

    It begins a new branch of the tree. What came after `aggregate` stays readable, but is abandoned: updates that are
    trained from it do not count. The open round begins again.
    Raises ExperimentEnded, InvalidTransition while a round is being aggregated, InvalidValue, and what `create_once`
    raises.
    """

    def create() -> ModelAggregate:
        collecting = lock_open_round(federated_model)
        if is_aggregating(federated_model):
            raise InvalidTransition("a round is being aggregated; rewind when it has been published")
        aggregate.refresh_from_db()
        if aggregate.federated_model_id != federated_model.pk:
            raise InvalidValue(
                f"model {federated_model.pk} has no aggregate {aggregate.pk}", field="aggregate"
            )
        if aggregate.is_abandoned:
            # Its own branch would be what is abandoned.
            raise InvalidValue(
                f"aggregate {aggregate.pk} is on a branch that was abandoned; rewind to one before it",
                field="aggregate",
            )
        ModelAggregate.objects.filter(
            federated_model=federated_model, pk__gt=aggregate.pk, is_abandoned=False
        ).update(is_abandoned=True)
        restored = ModelAggregate.objects.create(
            federated_model=federated_model,
            parent=aggregate,
            sha256=aggregate.sha256,
            size_bytes=aggregate.size_bytes,
            state_sha256=aggregate.state_sha256,
            state_size_bytes=aggregate.state_size_bytes,
            validation_score=aggregate.validation_score,
        )
        drop_updates(collecting, f"the model was rewound to aggregate {aggregate.pk}")
        move(collecting, RoundState.CANCELLED, closed_on=timezone.now())
        advance(open_round(collecting.federated_model), has_news=True)
        return restored

    return create_once(once, ModelAggregate, create)


def clone(
    federated_model: FederatedModel,
    *,
    developer: User,
    name: str | None = None,
    aggregate: ModelAggregate | None = None,
    clients: Iterable[Client] = (),
    once: Once | None = None,
) -> FederatedModel:
    """A new experiment with the configuration of another, not started.

    Its initial model is `aggregate`, or, without one, the initial model of the other. Raises InvalidValue, and what
    `create_once` raises.
    """
    start_from: ModelAggregate | ModelArtifact | None = aggregate
    if aggregate is None:
        start_from = initial_artifact(federated_model)
    elif aggregate.federated_model_id != federated_model.pk:
        raise InvalidValue(f"model {federated_model.pk} has no aggregate {aggregate.pk}", field="aggregate")
    made = FederatedModel(
        name=name or f"{federated_model.name} (clone)"[:255],
        developer=developer,
        spec=federated_model.spec,
        weights_layout=federated_model.weights_layout,
    )
    made.configure(federated_model.configuration)

    def create() -> FederatedModel:
        made.save()
        set_clients(made, clients, by=developer)
        if start_from is not None:
            create_artifact(made, version="1.0.0", sha256=start_from.sha256, size_bytes=start_from.size_bytes)
        record_version(made, by=developer)
        open_round(made)
        return made

    return create_once(once, FederatedModel, create)


def _run(collecting: Round) -> None:
    switch(collecting, on=True)
    advance(collecting)


def _begin_again(federated_model: FederatedModel) -> Round:
    ended = FederatedModel.objects.select_for_update().get(pk=federated_model.pk)
    reason = ended.end_reason
    if ended.ended_on is None:  # somebody else began it again meanwhile
        return lock_open_round(federated_model)
    ended.ended_on, ended.end_reason = None, ""
    ended.save(update_fields=["ended_on", "end_reason"])
    if reason_to_end(ended) is not None:
        raise InvalidTransition(
            f"the experiment is over by its round policy ({reason}); change that first", reason=reason
        )
    open_round(ended)
    return lock_open_round(ended)
