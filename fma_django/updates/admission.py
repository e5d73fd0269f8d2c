"""Whether a client may take part in a round: its update is taken, or refused with the reason."""

from dataclasses import dataclass

from django.db.models import Exists, OuterRef
from django.utils import timezone

from fma_django.errors import LateUpdate, NotSelected, RoundFull
from fma_django.models import ModelUpdate, Participation, Round
from fma_django.models.model_update import ACCEPTED
from fma_django.models.round import RoundState
from fma_django.record.rules import BuiltConfiguration
from fma_django.rounds.facts import takes_no_more
from fma_django.updates.standing import Standing


@dataclass(frozen=True)
class Answered:
    """The participation that an update answers. is_new: nothing had answered it before."""

    participation_id: int
    was_late: bool
    is_new: bool


def admit(standing: Standing, rules: BuiltConfiguration) -> Answered | None:
    """The participation that an update of this client answers, where there is one.

    standing: of an open round.
    Raises NotSelected, LateUpdate, and RoundFull when no further client fits in.
    """
    is_in = standing.earlier_id is not None
    is_missed = rules.chooses_clients and not standing.is_chosen and not is_in
    answered = _missed(standing) if is_missed else _answered(standing)
    is_late = is_missed or _is_of_an_earlier_round(standing)
    policy = rules.closing.policy
    if is_late and policy.late_updates == "refuse":
        unnamed = "" if is_missed or standing.base_id is not None else ", or does not name its base_aggregate"
        raise LateUpdate(
            f"round {standing.number} is open, and the update was trained for an earlier one{unnamed}; "
            "the model's policy refuses late updates"
        )
    if policy.max_updates is not None and standing.num_updates >= policy.max_updates and not is_in:
        _require_room(standing, rules)
    return answered


def mark_answered(answered: Answered) -> None:
    """Write down that an update came for a participation."""
    if answered.is_new:
        Participation.objects.filter(pk=answered.participation_id).update(
            answered_on=timezone.now(), was_late=answered.was_late
        )


def _answered(standing: Standing) -> Answered | None:
    if standing.participation_id is None:
        return None
    return Answered(standing.participation_id, was_late=False, is_new=not standing.has_answered)


def _missed(standing: Standing) -> Answered:
    """The participation in the last round that the client was chosen for and that went on without its answer."""
    client_id = standing.client_id
    answered = ModelUpdate.objects.filter(round=OuterRef("round"), client=client_id, status__in=ACCEPTED)
    missed = (
        Participation.objects.filter(
            ~Exists(answered),
            client=client_id,
            is_chosen=True,
            answered_on__isnull=True,
            round__federated_model=standing.federated_model_id,
            round__number__lt=standing.number,
        )
        .exclude(round__state=RoundState.CANCELLED)
        .order_by("-round__number")
        .first()
    )
    if missed is None:
        raise NotSelected(_not_selected(standing), round=standing.number)
    return Answered(missed.pk, was_late=True, is_new=True)


def _require_room(standing: Standing, rules: BuiltConfiguration) -> None:
    current = Round.objects.select_related("federated_model", "config_version").get(pk=standing.round_id)
    current.num_updates = standing.num_updates
    if takes_no_more(current, rules.closing.policy):
        raise RoundFull(
            f"round {current.number} has {current.num_updates} updates, which is all that it takes (max_updates)"
        )


def _is_of_an_earlier_round(standing: Standing) -> bool:
    # Without a base, it was trained from the initial model.
    return standing.parent_id is not None and standing.base_id != standing.parent_id


def _not_selected(standing: Standing) -> str:
    if standing.num_asked is None:
        return f"the clients of round {standing.number} have not been chosen yet; join first"
    if standing.participation_id is None:
        return f"the clients of round {standing.number} had been chosen before this one registered"
    return f"this client was not chosen for round {standing.number}: {standing.not_chosen_because}"
