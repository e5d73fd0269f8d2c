"""Evaluations with how far they are, in a constant number of queries."""

from typing import Any

from django.db.models import Count, OuterRef, Prefetch, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from fma_django.models import Client, EvaluationResult, EvaluationRound
from fma_django.models.evaluation_round import EvaluationState


def with_progress(evaluations: QuerySet[EvaluationRound]) -> QuerySet[EvaluationRound]:
    """Evaluations with `num_asked`, `num_answered` and their model."""
    asked = EvaluationRound.clients.through._default_manager.filter(evaluationround=OuterRef("pk"))
    answered = EvaluationResult.objects.filter(evaluation=OuterRef("pk"))
    return evaluations.select_related("federated_model").annotate(
        num_asked=_number(asked, "evaluationround"), num_answered=_number(answered, "evaluation")
    )


def with_clients(evaluations: QuerySet[EvaluationRound]) -> QuerySet[EvaluationRound]:
    """Evaluations with the ids of the clients asked and of those that answered, and their organisations, without their
    numbers."""
    results = EvaluationResult.objects.only("evaluation_id", "client_id", "organisation_id")
    return evaluations.select_related("federated_model").prefetch_related(
        Prefetch("clients", Client.objects.only("pk", "organisation_id").order_by("pk")),
        Prefetch("results", results.order_by("client_id")),
    )


def waiting_for(client: Client) -> QuerySet[EvaluationRound]:
    """The evaluations that the client has been asked for, has not answered, and still can, oldest first."""
    return (
        EvaluationRound.objects.filter(
            clients=client,
            federated_model__clients=client,
            state=EvaluationState.OPEN,
            deadline_at__gt=timezone.now(),
        )
        .exclude(results__client=client)
        .order_by("pk")
    )


def _number(rows: QuerySet[Any], by: str) -> Coalesce:
    # A subquery of its own: two joined counts in one query would multiply each other.
    return Coalesce(Subquery(rows.order_by().values(by).annotate(n=Count("pk")).values("n")), 0)
