"""Starting a round: once enough clients may be asked, its cohort is chosen and its time begins to run.

A model whose selector is `everyone`, without filters, has no cohort: each registered client may answer.
"""

from datetime import timedelta
from typing import Any

import structlog
from django.db import DatabaseError
from django.utils import timezone

from fma_core.errors import InvalidPart, InvalidStrategy
from fma_core.rounds.cohorts import Cohort, draw_cohort, num_needed
from fma_core.selection import filters, selectors
from fma_django import wakeups
from fma_django.models import FederatedModel, Participation, Round
from fma_django.record.configuration import as_configured
from fma_django.record.queries.participation import candidates_of, past_rounds
from fma_django.rounds.closing import what_is_beside

log = structlog.get_logger(__name__)


def start_if_possible(collecting: Round) -> bool:
    """Start a locked collecting round, unless something stands against it, which it then says (`waits_for`).

    To be called, inside a transaction, after everything that may make it possible.
    """
    federated_model = collecting.federated_model
    if collecting.started_on is not None or not federated_model.allow_aggregation:
        return False
    registered, is_aggregating = what_is_beside(federated_model)
    if is_aggregating:
        return _wait(collecting, "the round before it, which is being aggregated")
    experiment = as_configured(collecting)
    try:
        policy = experiment.build_round_policy()
        needed = num_needed(policy, experiment.build_strategy())
        if registered < needed:
            return _wait(collecting, f"clients to register: {registered} of {needed}")
        if not experiment.chooses_clients:
            _start(collecting, policy.deadline_s, num_asked=None)
            return True
        cohort = _draw(collecting, experiment, needed, policy.cohort_size)
    except (InvalidPart, InvalidStrategy) as error:
        log.error("model_unusable", model=federated_model.pk, error=error.message)
        return _wait(collecting, error.message)
    except DatabaseError:
        raise
    except Exception as error:
        # A defect, in a plugin perhaps: it holds up this round, and not the publication of the one before.
        log.exception("selection_defect", model=federated_model.pk, round=collecting.number)
        return _wait(collecting, f"{type(error).__name__}: {error}"[:500])
    is_drawn = cohort.num_draws != collecting.num_draws
    collecting.num_draws = cohort.num_draws
    if len(cohort.chosen) < needed:
        what = f"clients that may be asked: {len(cohort.chosen)} of {needed}"
        return _wait(collecting, what, is_drawn=is_drawn)
    _write_down(collecting, cohort)
    _start(collecting, policy.deadline_s, num_asked=len(cohort.chosen))
    log.info("cohort_chosen", model=federated_model.pk, round=collecting.number, clients=len(cohort.chosen))
    return True


def reopen(collecting: Round) -> None:
    """Give a locked round whose deadline has passed more time, and where it has a cohort, more clients.

    Who was asked before may still answer, and what was sent counts.
    """
    Round.objects.filter(pk=collecting.pk).update(
        started_on=None,
        deadline_at=None,
        ready_on=None,
        num_reopenings=collecting.num_reopenings + 1,
    )
    collecting.refresh_from_db()
    start_if_possible(collecting)


def follow_configuration(collecting: Round, before: FederatedModel) -> None:
    """Let a locked round that was started follow a change of its configuration, which it has taken already.

    before: its model as the round was configured. Clients that are chosen in another way are chosen again; those stay
    who have joined or answered. Another deadline counts from now, or from when the experiment goes on.
    """
    if collecting.started_on is None:
        return
    experiment = as_configured(collecting)
    if _who_is_asked(before) != _who_is_asked(experiment):
        collecting.participations.filter(joined_on__isnull=True, answered_on__isnull=True).delete()
        _start_again(collecting)
    elif before.round_policy.get("deadline_s") != experiment.round_policy.get("deadline_s"):
        seconds = experiment.round_policy.get("deadline_s")
        since = collecting.federated_model.paused_on or timezone.now()
        collecting.deadline_at = None if seconds is None else since + timedelta(seconds=seconds)
        collecting.save(update_fields=["deadline_at"])


def go_on_without_who_left(collecting: Round) -> None:
    """Wait no longer for clients of the cohort that were revoked or taken out of the model.

    Where the others are too few and no deadline would find it, more clients are asked.
    """
    if collecting.num_asked is None or collecting.started_on is None:
        return
    num_asked = len(_asked(collecting))
    if num_asked == collecting.num_asked:
        return
    collecting.num_asked = num_asked
    collecting.save(update_fields=["num_asked"])
    experiment = as_configured(collecting)
    try:
        needed = num_needed(experiment.build_round_policy(), experiment.build_strategy())
    except (InvalidPart, InvalidStrategy) as error:
        log.error("model_unusable", model=experiment.pk, error=error.message)
        return
    if num_asked < needed and collecting.deadline_at is None:
        _start_again(collecting)
        start_if_possible(collecting)


def _start_again(collecting: Round) -> None:
    collecting.started_on = collecting.deadline_at = collecting.num_asked = None
    collecting.save(update_fields=["started_on", "deadline_at", "num_asked"])


def _who_is_asked(experiment: FederatedModel) -> tuple[Any, ...]:
    size = tuple(experiment.round_policy.get(name) for name in ("goal", "over_selection", "min_updates"))
    # The policy says how many only where some are chosen.
    return experiment.selector, experiment.eligibility, size if experiment.chooses_clients else ()


def _draw(collecting: Round, experiment: FederatedModel, needed: int, wanted: int | None) -> Cohort:
    selector = selectors.build_spec(experiment.selector)
    return draw_cohort(
        candidates_of(experiment, timezone.now()),
        filters=[filters.build_spec(spec) for spec in experiment.eligibility],
        selector=selector,
        num_needed=needed,
        num_wanted=wanted,
        seed=experiment.seed,
        round_number=collecting.number,
        past=lambda: past_rounds(experiment, limit=selector.num_past),
        asked=_asked(collecting),
        num_draws=collecting.num_draws,
    )


def _asked(collecting: Round) -> set[str]:
    """Those who can still answer."""
    present = collecting.federated_model.clients.filter(is_active=True)
    chosen = collecting.participations.filter(is_chosen=True, client__in=present)
    return {str(client_id) for client_id in chosen.values_list("client_id", flat=True)}


def _write_down(collecting: Round, cohort: Cohort) -> None:
    collecting.participations.filter(is_chosen=False).delete()
    known = {str(pk) for pk in collecting.participations.values_list("client_id", flat=True)}
    rows = [
        Participation(round=collecting, client_id=client, is_chosen=True)
        for client in cohort.chosen
        if client not in known
    ]
    rows += [
        Participation(round=collecting, client_id=client, is_chosen=False, reason=why.code, detail=why.detail)
        for client, why in cohort.refused.items()
    ]
    Participation.objects.bulk_create(rows, batch_size=1000)


def _start(collecting: Round, deadline_s: float | None, *, num_asked: int | None) -> None:
    now = timezone.now()
    collecting.started_on = now
    collecting.deadline_at = None if deadline_s is None else now + timedelta(seconds=deadline_s)
    collecting.num_asked = num_asked
    collecting.waits_for = ""
    collecting.save(update_fields=["started_on", "deadline_at", "num_asked", "num_draws", "waits_for"])
    wakeups.send(wakeups.of_model(collecting.federated_model_id))


def _wait(collecting: Round, what: str, *, is_drawn: bool = False) -> bool:
    # A draw that was forgotten would be made again, and fail again.
    if is_drawn or collecting.waits_for != what:
        collecting.waits_for = what
        collecting.save(update_fields=["waits_for", "num_draws"])
    return False
