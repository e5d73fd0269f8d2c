"""Let the open round follow changes of its configuration and of its clients.

None of this decides what comes next: `advance` does, when all is changed.
"""

from datetime import timedelta
from typing import Any

import structlog
from django.utils import timezone

from fma_core.errors import InvalidPart, InvalidStrategy
from fma_core.rounds.cohorts import num_needed
from fma_django.models import FederatedModel, Round
from fma_django.record.configuration import as_configured
from fma_django.rounds.facts import asked_of
from fma_django.rounds.rows import ids_of

log = structlog.get_logger(__name__)


def follow_configuration(held: Round, before: FederatedModel) -> None:
    """Let a locked round that was started follow a change of its configuration, which it has taken already.

    before: its model as the round was configured. Clients that are chosen in another way are chosen again; those stay
    who have joined or answered. Another deadline counts from now, or from when the experiment goes on.
    """
    if held.started_on is None:
        return
    experiment = as_configured(held)
    if _who_is_asked(before) != _who_is_asked(experiment):
        held.participations.filter(joined_on__isnull=True, answered_on__isnull=True).delete()
        _start_again(held)
    elif before.round_policy.get("deadline_s") != experiment.round_policy.get("deadline_s"):
        seconds = experiment.round_policy.get("deadline_s")
        since = held.federated_model.paused_on or timezone.now()
        held.deadline_at = None if seconds is None else since + timedelta(seconds=seconds)
        held.save(update_fields=["deadline_at"])


def forget_clients_that_left(held: Round) -> None:
    """Wait no longer for clients of the cohort that were revoked or taken out of the model.

    Where the others are too few and no deadline would find it, the round starts again, and more clients are asked.
    """
    if held.num_asked is None or held.started_on is None:
        return
    num_asked = len(asked_of(held))
    if num_asked == held.num_asked:
        return
    held.num_asked = num_asked
    held.save(update_fields=["num_asked"])
    experiment = as_configured(held)
    try:
        needed = num_needed(experiment.build_round_policy(), experiment.build_strategy())
    except (InvalidPart, InvalidStrategy) as error:
        log.error("model_unusable", **ids_of(held), error=error.message)
        return
    if num_asked < needed and held.deadline_at is None:
        _start_again(held)


def _start_again(held: Round) -> None:
    held.started_on = held.deadline_at = held.num_asked = None
    held.save(update_fields=["started_on", "deadline_at", "num_asked"])


def _who_is_asked(experiment: FederatedModel) -> tuple[Any, ...]:
    size = tuple(experiment.round_policy.get(name) for name in ("goal", "over_selection", "min_updates"))
    # The policy says how many only where some are chosen.
    return experiment.selector, experiment.eligibility, size if experiment.chooses_clients else ()
