"""Whether a client may take part in a round: its update is taken, or refused with the reason."""

from django.db.models import Exists, OuterRef
from django.utils import timezone

from fma_django.errors import LateUpdate, NotSelected, RoundFull
from fma_django.models import Client, FederatedModel, ModelAggregate, ModelUpdate, Participation, Round
from fma_django.models.model_update import ACCEPTED
from fma_django.models.round import RoundState
from fma_django.services.closing import is_full


def admit(
    current: Round, experiment: FederatedModel, client: Client, base: ModelAggregate | None
) -> Participation | None:
    """The participation that an update of this client answers, where there is one.

    current: the open round, locked; experiment: its model as the round is configured.
    Raises NotSelected, LateUpdate, and RoundFull when no further client fits in.
    """
    policy = experiment.build_round_policy()
    answers = current.participations.filter(client=client).first()
    missed = None
    is_asked = answers is not None and answers.is_chosen
    if experiment.chooses_clients and not is_asked and not _is_in(current, client):
        missed = _missed(current, client)
        if missed is None:
            raise NotSelected(_not_selected(current, answers), round=current.number)
        answers = missed
    is_late = missed is not None or _is_of_an_earlier_round(current, base)
    if is_late and policy.late_updates == "refuse":
        raise LateUpdate(
            f"round {current.number} is open, and the update was trained for an earlier one; "
            "the model's policy refuses late updates"
        )
    if is_full(current, policy) and not _is_in(current, client):
        raise RoundFull(
            f"round {current.number} has {current.num_updates} updates, which is all that it takes (max_updates)"
        )
    return answers


def has_answered(answers: Participation, current: Round) -> None:
    """Write down that an update came for a participation."""
    if answers.answered_on is None:
        Participation.objects.filter(pk=answers.pk).update(
            answered_on=timezone.now(), was_late=answers.round_id != current.pk
        )


def _is_in(current: Round, client: Client) -> bool:
    return current.model_updates.filter(client=client, status__in=ACCEPTED).exists()


def _missed(current: Round, client: Client) -> Participation | None:
    """The last round that the client was chosen for, did not answer, and that has gone on without it."""
    answered = ModelUpdate.objects.filter(round=OuterRef("round"), client=client, status__in=ACCEPTED)
    return (
        Participation.objects.filter(
            ~Exists(answered),
            client=client,
            is_chosen=True,
            answered_on__isnull=True,
            round__federated_model=current.federated_model_id,
            round__number__lt=current.number,
        )
        .exclude(round__state=RoundState.CANCELLED)
        .select_related("round")
        .order_by("-round__number")
        .first()
    )


def _is_of_an_earlier_round(current: Round, base: ModelAggregate | None) -> bool:
    return base is not None and current.parent_id is not None and base.pk != current.parent_id


def _not_selected(current: Round, looked_at: Participation | None) -> str:
    if current.num_asked is None:
        return f"the clients of round {current.number} have not been chosen yet; join first"
    if looked_at is None:
        return f"the clients of round {current.number} had been chosen before this one registered"
    return f"this client was not chosen for round {current.number}: {looked_at.detail}"
