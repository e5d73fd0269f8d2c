"""Taking what a client counted: once, in time, from those who were asked."""

from typing import Any

from django.db import transaction
from django.utils import timezone

from fma_core.errors import InvalidStatistics
from fma_core.evaluation import from_json, to_json
from fma_django.errors import EvaluationClosed, NotRegistered, NotSelected, ResultTaken
from fma_django.evaluations.ends import close_if_all_answered
from fma_django.models import Client, EvaluationResult, EvaluationRound


def receive_result(evaluation: EvaluationRound, client: Client, statistics: Any) -> EvaluationResult:
    """Keep a client's statistics. The same again is the same row, also after the end.

    The answer of the last who is asked closes the evaluation.
    Raises NotRegistered, NotSelected, EvaluationClosed, ResultTaken, InvalidStatistics.
    """
    _require_asked(evaluation, client)
    try:
        counted = to_json(from_json(evaluation.asked, statistics))
    except InvalidStatistics as error:
        error.facts.setdefault("field", "statistics")
        raise
    with transaction.atomic():
        # Closing takes the same row: what is merged and what is taken never overlap.
        current = EvaluationRound.objects.select_for_update().get(pk=evaluation.pk)
        earlier = current.results.filter(client=client).first()
        if earlier is not None:
            return _require_same(earlier, counted)
        if not current.is_open or current.deadline_at <= timezone.now():
            raise EvaluationClosed(f"evaluation {current.pk} takes no results any more")
        result = EvaluationResult.objects.create(
            evaluation=current, client=client, organisation=client.organisation, statistics=counted
        )
    close_if_all_answered(evaluation)
    return result


def _require_asked(evaluation: EvaluationRound, client: Client) -> None:
    federated_model = evaluation.federated_model
    if not federated_model.clients.filter(pk=client.pk, is_active=True).exists():
        raise NotRegistered.of(federated_model.pk)
    if not evaluation.clients.filter(pk=client.pk).exists():
        raise NotSelected(f"this client was not chosen for evaluation {evaluation.pk}")


def _require_same(earlier: EvaluationResult, counted: dict[str, Any]) -> EvaluationResult:
    if earlier.statistics != counted:
        raise ResultTaken(
            f"this client has sent other results for evaluation {earlier.evaluation_id} already"
        )
    return earlier
