"""Evaluations for the tests of the server: hospitals with their clients, and what each of them counted.

evaluation = open_to(model, hospitals)
answer(evaluation, client, hits=3, misses=1)
"""

from typing import Any

from fma_core.evaluation import Question, statistics_of, to_json
from fma_django.evaluations.opening import open_evaluation
from fma_django.evaluations.results import receive_result
from fma_django.models import Client, EvaluationResult, EvaluationRound, FederatedModel, Organisation
from tests.records import make_client

BINARY = {"task": "binary"}


def make_member(organisation: str, *models: FederatedModel) -> Any:
    """A new client of this organisation, registered with these models; its registration."""
    registration = make_client(*models)
    registration.client.organisation, _ = Organisation.objects.get_or_create(name=organisation)
    registration.client.save()
    return registration


def open_to(model: FederatedModel, **options: Any) -> EvaluationRound:
    """A binary evaluation of the model's initial artifact, by default of every client."""
    assert model.current_artifact is not None
    return open_evaluation(model, BINARY, artifact_id=model.current_artifact.pk, **options)


def counted(*, hits: int = 1, misses: int = 0) -> dict[str, Any]:
    """The statistics of a client whose model takes every example for positive."""
    y_true = [1] * hits + [0] * misses
    return to_json(statistics_of(Question.from_json(BINARY), y_true=y_true, y_pred=[1] * len(y_true)))


def answer(
    evaluation: EvaluationRound, client: Client, *, hits: int = 1, misses: int = 0
) -> EvaluationResult:
    return receive_result(evaluation, client, counted(hits=hits, misses=misses))
