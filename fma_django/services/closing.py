"""Whether a round may be closed, by all that its configuration says; `fma_core.closing` decides."""

from collections import Counter

import structlog
from django.utils import timezone

from fma_core import closing
from fma_core.closing import RoundFacts, RoundRules
from fma_core.errors import InvalidPart, InvalidStrategy
from fma_core.round_policy import RoundPolicy, Verdict
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
        rules = RoundRules(
            policy=experiment.build_round_policy(),
            strategy=experiment.build_strategy() if current.is_open else current.build_strategy(),
            requirement=experiment.build_requirement() if experiment.requirement else None,
        )
        return closing.verdict_of(rules, _facts(current, experiment, rules))
    except (InvalidPart, InvalidStrategy) as error:
        # It was there when the model was saved.
        log.error("model_unusable", model=experiment.pk, error=error.message)
        return "wait"


def is_full(current: Round, policy: RoundPolicy) -> bool:
    """Whether a round takes no further client. One that lacks an organisation, or who its rule cannot do without, would
    otherwise wait for them for ever.
    """
    most = policy.max_updates
    return most is not None and current.num_updates >= most and verdict_of(current) == "close"


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


def _facts(current: Round, experiment: FederatedModel, rules: RoundRules) -> RoundFacts:
    """How far the round is; what its rules do not look at is not looked up."""
    answered = current.model_updates.filter(status__in=COUNTED)
    strategy, policy = rules.strategy, rules.policy
    return RoundFacts(
        # An accepted update is the only one of its client in the round, and does not outlive its registration.
        num_updates=current.num_updates,
        num_clients=0 if rules.requirement is None else num_clients(experiment),
        num_asked=current.num_asked,
        has_start=not strategy.needs_start
        or current.num_updates < strategy.min_updates
        or bool(start_of(experiment, current.parent)),
        deadline_passed=current.deadline_at is not None and current.deadline_at <= timezone.now(),
        answered=[str(client_id) for client_id in answered.values_list("client_id", flat=True)]
        if strategy.aggregator.required_clients
        else (),
        by_organisation=Counter(
            name or "" for name in answered.values_list("client__organisation__name", flat=True)
        )
        if policy.quorum_organisations
        else {},
    )
