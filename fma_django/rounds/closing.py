"""Whether a round may be closed, by all that its configuration says; `fma_core.rounds.closing` decides."""

from collections import Counter
from contextlib import suppress
from typing import Annotated, NamedTuple
from uuid import UUID

import structlog
from django.db import connection
from django.utils import timezone

from fma_core.errors import InvalidPart, InvalidStrategy
from fma_core.rounds import closing
from fma_core.rounds.closing import RoundFacts, RoundRules
from fma_core.rounds.policy import RoundPolicy, Verdict
from fma_django import queue
from fma_django.models import Client, FederatedModel, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.record.configuration import as_configured
from fma_django.record.queries.aggregates import start_of
from fma_django.record.sql import Select

log = structlog.get_logger(__name__)

COUNTED = (UpdateStatus.PENDING, UpdateStatus.RUNNING)

_NUM_CLIENTS = """(SELECT COUNT(*) FROM {reg} JOIN {c} ON {c.id} = {reg.client_id}
    WHERE {reg.federatedmodel_id} = %(model)s AND {c.is_active})"""
_IS_AGGREGATING = """EXISTS (SELECT 1 FROM {r}
    WHERE {r.federated_model_id} = %(model)s AND {r.state} = {aggregating})"""


class Beside(NamedTuple):
    """What there is in a model beside its open round."""

    num_clients: Annotated[int, _NUM_CLIENTS]
    is_aggregating: Annotated[bool, _IS_AGGREGATING]


_BESIDE = Select(
    Beside,
    "",
    r=Round,
    c=Client,
    reg=FederatedModel.clients.through,
    aggregating=RoundState.AGGREGATING,
)


def close_if_due(collecting: Round) -> None:
    """Ask for the aggregation of a collecting round, which this transaction holds, if nothing stands against it.

    To be called after everything that may make it so.
    """
    verdict, facts = _judge(collecting)
    if facts is not None and facts.num_clients not in (0, collecting.clients_counted):
        Round.objects.filter(pk=collecting.pk).update(clients_counted=facts.num_clients)
    is_due = verdict == "close"
    if not is_due or not collecting.federated_model.allow_aggregation:
        if collecting.ready_on is not None and not is_due:
            Round.objects.filter(pk=collecting.pk).update(ready_on=None)
        return
    if collecting.ready_on is None:
        Round.objects.filter(pk=collecting.pk).update(ready_on=timezone.now())
    queue.aggregate_on_commit(collecting.pk)


def may_be_due(rules: RoundRules, facts: RoundFacts, *, clients_counted: int | None) -> bool:
    """Whether `close_if_due` is worth its cost after one more update: it looks at every client and every update.

    facts: what is known without them. clients_counted: see Round.
    """
    if _counts_clients(rules, facts.num_asked) and clients_counted is None:
        return True
    return closing.verdict_of(rules, facts) == "close"


def verdict_of(current: Round) -> Verdict:
    """What the round's policy, its requirement and its strategy say of it now.

    A plugin that is gone holds a round open: nothing else of the server may stop for that.
    """
    return _judge(current)[0]


def is_full(current: Round, policy: RoundPolicy) -> bool:
    """Whether a round takes no further client. One that lacks an organisation, or who its rule cannot do without, would
    otherwise wait for them for ever.
    """
    most = policy.max_updates
    return most is not None and current.num_updates >= most and verdict_of(current) == "close"


def may_start_aggregating(collecting: Round, beside: Beside) -> bool:
    return (
        collecting.federated_model.allow_aggregation
        and not beside.is_aggregating
        and _judge(collecting, beside)[0] == "close"
    )


def what_is_beside(federated_model: FederatedModel) -> Beside:
    with connection.cursor() as cursor:
        (beside,) = _BESIDE.all(cursor, {"model": federated_model.pk})
    return beside


def is_aggregating(federated_model: FederatedModel) -> bool:
    return bool(what_is_beside(federated_model).is_aggregating)


def num_clients(federated_model: FederatedModel) -> int:
    return what_is_beside(federated_model).num_clients


def _judge(current: Round, beside: Beside | None = None) -> tuple[Verdict, RoundFacts | None]:
    experiment = as_configured(current)
    try:
        rules = RoundRules(
            policy=experiment.build_round_policy(),
            strategy=experiment.build_strategy() if current.is_open else current.build_strategy(),
            requirement=experiment.build_requirement() if experiment.requirement else None,
        )
        facts = _facts(current, experiment, rules, beside)
        return closing.verdict_of(rules, facts), facts
    except (InvalidPart, InvalidStrategy) as error:
        # It was there when the model was saved.
        log.error("model_unusable", model=experiment.pk, error=error.message)
        return "wait", None


def _facts(
    current: Round, experiment: FederatedModel, rules: RoundRules, beside: Beside | None
) -> RoundFacts:
    """How far the round is; what its rules do not look at is not looked up."""
    answered = current.model_updates.filter(status__in=COUNTED)
    strategy, policy = rules.strategy, rules.policy
    needed = strategy.aggregator.required_clients
    counted = 0
    if _counts_clients(rules, current.num_asked):
        counted = num_clients(experiment) if beside is None else beside.num_clients
    return RoundFacts(
        # An accepted update is the only one of its client in the round, and does not outlive its registration.
        num_updates=current.num_updates,
        num_clients=counted,
        num_asked=current.num_asked,
        has_start=not strategy.needs_start
        or current.num_updates < strategy.min_updates
        or bool(start_of(experiment, current.parent)),
        deadline_passed=current.deadline_at is not None and current.deadline_at <= timezone.now(),
        answered=[
            str(client_id)
            for client_id in answered.filter(client__in=_ids(needed)).values_list("client_id", flat=True)
        ]
        if needed
        else (),
        by_organisation=Counter(
            name or "" for name in answered.values_list("client__organisation__name", flat=True)
        )
        if policy.quorum_organisations
        else {},
    )


def _counts_clients(rules: RoundRules, num_asked: int | None) -> bool:
    return rules.requirement is not None and num_asked is None and rules.policy.goal is None


def _ids(said: tuple[str, ...]) -> list[UUID]:
    """Those that can be a client's at all: a developer wrote them."""
    found = []
    for client_id in said:
        with suppress(ValueError):
            found.append(UUID(client_id))
    return found
