"""Let the open round of a model go on as far as its rules allow.

`fma_core.rounds.life.next_step` decides; this carries out what it says. `advance` belongs at the end of every
transaction that touched a round: an update came, a client registered or left, the configuration changed, a round ended,
time passed.
"""

from datetime import timedelta
from typing import assert_never

import structlog
from django.db import DatabaseError
from django.utils import timezone

from fma_core.errors import InvalidPart, InvalidStrategy
from fma_core.rounds.cohorts import Cohort
from fma_core.rounds.life import Close, End, Fail, Reopen, Start, Step, Wait, next_step
from fma_django import queue, wakeups
from fma_django.models import Participation, Round
from fma_django.models.model_update import UpdateStatus
from fma_django.models.round import RoundState
from fma_django.rounds.ending import end_experiment
from fma_django.rounds.facts import RecordedFacts
from fma_django.rounds.rows import ids_of, log_of_round, move

log = structlog.get_logger(__name__)

# A round whose deadline has passed and that cannot be judged, because a plugin is gone, is looked at again after this.
UNJUDGED_FOR = timedelta(minutes=1)


class _Unjudged(Wait):
    """Wait, because a part of the rules is gone or has a defect."""


def advance(held: Round, *, may_end: bool = False, has_news: bool = False) -> None:
    """Start, close, open again, fail or end an open round that this transaction holds, where its rules say so.

    A round that may be closed is not claimed here: its aggregation is asked for, once the transaction has committed.
    may_end: whether something has happened that can end the experiment: a publication, a score, its date.
    has_news: whether the caller itself has news for the clients that wait; they are woken once.
    """
    facts = RecordedFacts(held, may_end=may_end)
    was_reopened = False
    while True:
        step = _ask(facts)
        if isinstance(step, Reopen) and was_reopened:
            break  # its deadline is shorter than this loop; the clock finds it in a second
        _apply(step, facts)
        was_reopened |= isinstance(step, Reopen)
        has_news |= isinstance(step, Start | Fail | End)
        # Without an update no round is due, and judging it would only cost.
        if not isinstance(step, Reopen) and not (isinstance(step, Start) and held.num_updates):
            break
    if has_news:
        wakeups.send(wakeups.of_model(held.federated_model_id))


def facts_if_due(held: Round) -> RecordedFacts | None:
    """The facts of an open round that may be aggregated now; None for any other."""
    facts = RecordedFacts(held)
    return facts if not facts.is_aggregating and isinstance(_ask(facts), Close) else None


def _ask(facts: RecordedFacts) -> Step:
    try:
        return next_step(facts.rules, facts)
    except (InvalidPart, InvalidStrategy) as error:
        # It was there when the model was saved. Nothing else of the server may stop for that.
        log.error("model_unusable", **ids_of(facts.current), error=error.message)
        return _Unjudged(error.message)
    except DatabaseError:
        raise
    except Exception as error:
        # A defect, in a plugin perhaps: it holds up this round, and neither the publication of the one before nor an
        # update that comes.
        log.exception("round_defect", **ids_of(facts.current))
        return _Unjudged(f"{type(error).__name__}: {error}"[:500])


def _apply(step: Step, facts: RecordedFacts) -> None:
    match step:
        case Wait():
            _note_wait(step, facts)
        case Start():
            _start(step, facts)
        case Close():
            _close(facts)
        case Reopen():
            _reopen(facts)
        case Fail():
            _fail(step, facts)
        case End():
            end_experiment(facts.current.federated_model, step.reason, collecting=facts.current)
        case _:
            assert_never(step)


def _note_wait(step: Wait, facts: RecordedFacts) -> None:
    held = facts.current
    changes: dict[str, object] = {}
    if facts.is_started:
        changes = _counted(facts)
        if held.waits_for != step.reason:
            changes["waits_for"] = step.reason
        if isinstance(step, _Unjudged) and held.deadline_at is not None and facts.deadline_passed:
            changes["deadline_at"] = held.deadline_at + UNJUDGED_FOR
    elif facts.is_running:
        num_draws = held.num_draws if step.cohort is None else step.cohort.num_draws
        # A draw that was forgotten would be made again, and fail again.
        if (held.waits_for, held.num_draws) != (step.reason, num_draws):
            changes = {"waits_for": step.reason, "num_draws": num_draws}
    if not step.is_complete and held.ready_on is not None:
        changes["ready_on"] = None
    elif step.is_complete and facts.is_running and held.ready_on is None:
        changes["ready_on"] = timezone.now()
        log_of_round("round_closed", held, updates=held.num_updates)
    _save(held, **changes)


def _start(step: Start, facts: RecordedFacts) -> None:
    held, now = facts.current, timezone.now()
    cohort = step.cohort
    if cohort is not None:
        _write_cohort(held, cohort)
        log.info("cohort_chosen", **ids_of(held), clients=len(cohort.chosen))
    _save(
        held,
        started_on=now,
        deadline_at=None if step.deadline_s is None else now + timedelta(seconds=step.deadline_s),
        num_asked=None if cohort is None else len(cohort.chosen),
        num_draws=held.num_draws if cohort is None else cohort.num_draws,
        clients_counted=facts.num_expected if cohort is None else None,
        waits_for="",
    )


def _close(facts: RecordedFacts) -> None:
    held, now = facts.current, timezone.now()
    changes: dict[str, object] = _counted(facts)
    if held.ready_on is None:
        changes["ready_on"] = now
        log_of_round("round_closed", held, updates=held.num_updates)
    if held.waits_for:
        changes["waits_for"] = ""
    # Of every update to a round that no worker takes, a task would wait. The clock of another machine may be wrong.
    if held.asked_on is None or abs(now - held.asked_on) >= queue.LOST_AFTER:
        changes["asked_on"] = now
        queue.aggregate_on_commit(held.pk)
    _save(held, **changes)


def _reopen(facts: RecordedFacts) -> None:
    held = facts.current
    _log_quorum(held)
    _save(held, started_on=None, deadline_at=None, ready_on=None, num_reopenings=held.num_reopenings + 1)


def _fail(step: Fail, facts: RecordedFacts) -> None:
    held = facts.current
    _log_quorum(held)
    held.model_updates.filter(status=UpdateStatus.PENDING).update(
        status=UpdateStatus.FAILED, status_reason=f"round {held.number} failed: {step.detail}"
    )
    move(
        held,
        RoundState.FAILED,
        closed_on=timezone.now(),
        failure_code=step.code,
        failure_detail=step.detail,
    )
    log_of_round("round_failed", held, level="error", code=step.code, detail=step.detail)
    end_experiment(held.federated_model, step.code, collecting=None)


def _write_cohort(held: Round, cohort: Cohort) -> None:
    held.participations.filter(is_chosen=False).delete()
    known = {str(pk) for pk in held.participations.values_list("client_id", flat=True)}
    rows = [
        Participation(round=held, client_id=client, is_chosen=True)
        for client in cohort.chosen
        if client not in known
    ]
    rows += [
        Participation(round=held, client_id=client, is_chosen=False, reason=why.code, detail=why.detail)
        for client, why in cohort.refused.items()
    ]
    Participation.objects.bulk_create(rows, batch_size=1000)


def _counted(facts: RecordedFacts) -> dict[str, object]:
    """The number of clients, where the rules have asked for it and it is not what the round remembers."""
    return (
        {}
        if facts.counted in (None, 0, facts.current.clients_counted)
        else {"clients_counted": facts.counted}
    )


def _save(held: Round, **changes: object) -> None:
    if changes:
        for column, value in changes.items():
            setattr(held, column, value)
        held.save(update_fields=list(changes))


def _log_quorum(held: Round) -> None:
    log.warning(
        "quorum_not_met",
        **ids_of(held),
        updates=held.num_updates,
        reopenings=held.num_reopenings,
    )
