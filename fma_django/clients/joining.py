"""A client asks whether it may take part now."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from fma_core.client_config import resolve
from fma_core.errors import FMAError
from fma_core.selection import Battery, Charging, FreeMemory, Speed, Unmetered, filters, screen
from fma_django.clients.pacing import retry_after_s
from fma_django.errors import NotRegistered
from fma_django.models import Client, FederatedModel, Participation, Round
from fma_django.models.federated_model import ModelState
from fma_django.models.model_update import ACCEPTED
from fma_django.record.configuration import as_configured
from fma_django.record.queries.aggregates import latest_aggregate
from fma_django.record.queries.participation import candidates_of
from fma_django.rounds.advance import advance
from fma_django.rounds.facts import takes_no_more
from fma_django.rounds.rows import find_open_round, read_open_round

# Filters of what changes from one minute to the next.
LIVE = (Battery, Charging, FreeMemory, Speed, Unmetered)


@dataclass(frozen=True)
class JoinAnswer:
    """The answer to a client: the round and its settings, or the reason for a refusal and when to ask again.

    base_aggregate: the id of the newest aggregate; None when the newest weights are an artifact's, or there are none.
    retry_after_s: None when asking again is of no use.
    """

    is_accepted: bool
    round: int | None = None
    base_aggregate: int | None = None
    client_config: dict[str, Any] | None = None
    deadline_at: datetime | None = None
    reason: str = ""
    detail: str = ""
    retry_after_s: int | None = None


def join(federated_model: FederatedModel, client: Client) -> JoinAnswer:
    """Let a client take part in the open round, if it was chosen for it or everyone may. Raises NotRegistered."""
    if not federated_model.clients.filter(pk=client.pk, is_active=True).exists():
        raise NotRegistered.of(federated_model.pk)
    with transaction.atomic():
        now = timezone.now()
        Client.objects.filter(pk=client.pk).update(last_seen_on=now)
        current = _current_round(federated_model)
        if current is None:
            ended = FederatedModel.objects.get(pk=federated_model.pk)
            return JoinAnswer(
                False, reason="experiment_ended", detail=f"the experiment ended: {ended.end_reason}"
            )
        refusal = _refusal(current, client, now)
        if refusal is not None:
            return _not_accepted(current, client, *refusal)
        experiment = as_configured(current)
        Participation.objects.filter(round=current, client=client, joined_on__isnull=True).update(
            joined_on=now
        )
        newest = latest_aggregate(current.federated_model)
        return JoinAnswer(
            True,
            round=current.number,
            base_aggregate=None if newest is None else newest.pk,
            client_config=client_config_of(current, experiment, client),
            deadline_at=current.deadline_at,
        )


def client_config_of(
    current: Round, experiment: FederatedModel, client: Client | None = None
) -> dict[str, Any]:
    """The configuration of a client in a round; without a client, the one without overrides for clients."""
    try:
        strategy_config = dict(experiment.build_strategy().aggregator.client_config)
    except FMAError:  # a plugin is gone, which must not make the round unreadable
        strategy_config = {}
    return resolve(
        experiment.client_config,
        experiment.client_config_overrides,
        round_number=current.number,
        client="" if client is None else str(client.pk),
        tags=_tags_of(client) if client is not None and _asks_for_tags(experiment) else (),
        strategy_config=strategy_config,
    )


def _asks_for_tags(experiment: FederatedModel) -> bool:
    return any("tags" in override for override in experiment.client_config_overrides)


def _tags_of(client: Client) -> list[str]:
    # `all()` uses tags that were loaded already: a list of rounds asks for those of each client.
    return [tag.name for tag in client.tags.all()]


Refused = tuple[str, str, float | None]


def _current_round(federated_model: FederatedModel) -> Round | None:
    """The open round. It is held only where joining may change it: of a cohort that is chosen, very many ask at once,
    and must not wait for each other.
    """
    current = read_open_round(federated_model)
    if current is None or not current.federated_model.allow_aggregation:
        return current
    if current.started_on is not None and current.num_asked is not None:
        return current
    return find_open_round(federated_model)


def _refusal(current: Round, client: Client, now: datetime) -> Refused | None:
    """The reason why the client cannot take part: a code, a sentence, and the seconds until it may have passed."""
    federated_model = current.federated_model
    if federated_model.state != ModelState.RUNNING:
        return "paused", f"the experiment is {federated_model.state}", None
    if current.started_on is None:
        advance(current)
    if current.started_on is None:
        return "not_started", f"round {current.number} waits for {current.waits_for}", None
    experiment = as_configured(current)
    policy = experiment.build_round_policy()
    if takes_no_more(current, policy):
        return "round_full", f"round {current.number} has all the updates that it takes", None
    looked_at = current.participations.filter(client=client).first()
    if not experiment.chooses_clients:
        refused = _answered(current, client)
        if refused is None and looked_at is None:
            Participation.objects.create(round=current, client=client, is_chosen=True, joined_on=now)
        return refused
    if looked_at is None:
        return "registered_later", f"the clients of round {current.number} had been chosen before", None
    if not looked_at.is_chosen:
        return looked_at.reason, looked_at.detail, None
    if looked_at.answered_on is not None:
        return _answered(current, client)
    return _no_longer_eligible(experiment, client, now)


def _answered(current: Round, client: Client) -> Refused | None:
    """Refuse a client whose update counts; one whose update was dropped may send again."""
    if not current.model_updates.filter(client=client, status__in=ACCEPTED).exists():
        return None
    return "already_answered", "this client's update of the round is there", None


def _no_longer_eligible(experiment: FederatedModel, client: Client, now: datetime) -> Refused | None:
    """Whether what the client reported since it was chosen (its battery, its network) speaks against it now.

    What it did, and how often it was asked, is no reason any more: being chosen changes both.
    """
    live = [part for part in map(filters.build_spec, experiment.eligibility) if isinstance(part, LIVE)]
    if not live:
        return None
    _, refused = screen(candidates_of(experiment, now, only=client), live)
    return next(((why.code, why.detail, None) for why in refused.values()), None)


def _not_accepted(
    current: Round, client: Client, code: str, detail: str, after_s: float | None
) -> JoinAnswer:
    pause_s = retry_after_s(current, client)
    return JoinAnswer(
        False,
        round=current.number,
        reason=code,
        detail=detail,
        retry_after_s=math.ceil(pause_s if after_s is None else max(after_s, pause_s)),
    )
