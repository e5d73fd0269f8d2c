"""Whether a round may be closed, by all that its configuration says."""

from collections import Counter

import structlog
from django.utils import timezone

from fma_core.errors import InvalidPart, InvalidStrategy
from fma_core.requirements import RoundProgress
from fma_core.round_policy import Answers, Verdict
from fma_core.strategy import Strategy
from fma_django import queue
from fma_django.models import FederatedModel, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.selectors.aggregates import start_of
from fma_django.services.configuration import as_configured

log = structlog.get_logger(__name__)

COUNTED = (UpdateStatus.PENDING, UpdateStatus.RUNNING)


def close_if_due(collecting: Round) -> None:
    """Ask for the aggregation of a collecting round, which this transaction holds, if nothing stands against it.

    To be called after everything that may make it so.
    """
    is_due = verdict_of(collecting) == "close"
    if not is_due or not collecting.federated_model.allow_aggregation:
        if collecting.ready_on is not None and not is_due:
            Round.objects.filter(pk=collecting.pk).update(ready_on=None)
        return
    if collecting.ready_on is None:
        Round.objects.filter(pk=collecting.pk).update(ready_on=timezone.now())
    queue.aggregate_on_commit(collecting.pk)


def verdict_of(current: Round) -> Verdict:
    """What the round's policy, its requirement and its strategy say of it now.

    A plugin that is gone holds a round open: nothing else of the server may stop for that.
    """
    experiment = as_configured(current)
    try:
        strategy = experiment.build_strategy() if current.is_open else current.build_strategy()
        policy = experiment.build_round_policy()
        deadline_passed = current.deadline_at is not None and current.deadline_at <= timezone.now()
        answers = Answers(
            num_updates=current.num_updates,
            requirement_met=policy.goal is not None or _requirement_met(experiment, current),
            num_asked=current.num_asked,
            by_organisation=_by_organisation(current) if policy.quorum_organisations else {},
            deadline_passed=deadline_passed,
        )
        verdict = policy.verdict(answers, min_updates=strategy.min_updates)
        if verdict == "close" and not _has_what_it_needs(experiment, strategy, current):
            return "quorum_not_met" if deadline_passed else "wait"
        return verdict
    except (InvalidPart, InvalidStrategy) as error:
        # It was there when the model was saved.
        log.error("model_unusable", model=experiment.pk, error=error.message)
        return "wait"


def may_start_aggregating(collecting: Round) -> bool:
    return (
        collecting.federated_model.allow_aggregation
        and verdict_of(collecting) == "close"
        and not is_aggregating(collecting.federated_model)
    )


def is_aggregating(federated_model: FederatedModel) -> bool:
    return federated_model.rounds.filter(state=RoundState.AGGREGATING).exists()


def num_clients(federated_model: FederatedModel) -> int:
    return federated_model.clients.filter(is_active=True).count()


def _requirement_met(experiment: FederatedModel, current: Round) -> bool:
    if current.num_asked is not None and not experiment.requirement:
        return False  # whoever chooses clients waits for them
    progress = RoundProgress(
        num_updates=current.num_updates,
        num_clients=num_clients(experiment) if current.num_asked is None else current.num_asked,
        # An accepted update is the only one of its client in the round, and does not outlive its registration.
        num_clients_answered=current.num_updates,
    )
    return experiment.build_requirement().is_met(progress)


def _by_organisation(current: Round) -> dict[str, int]:
    answered = current.model_updates.filter(status__in=COUNTED)
    return dict(Counter(name or "" for name in answered.values_list("client__organisation__name", flat=True)))


def _has_what_it_needs(experiment: FederatedModel, strategy: Strategy, current: Round) -> bool:
    """Whether the rule has all that it needs: what it lacks holds the round open, and never fails inside."""
    if strategy.needs_start and not start_of(experiment, current.parent):
        return False
    needed = strategy.aggregator.required_clients
    if not needed:
        return True
    waiting = current.model_updates.filter(status__in=COUNTED)
    answered = {str(client_id) for client_id in waiting.values_list("client_id", flat=True)}
    return answered.issuperset(needed)
