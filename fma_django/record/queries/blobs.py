"""The blobs of the store that rows name."""

from collections.abc import Iterable

from django.db import models

from fma_django.models import EvaluationRound, ModelAggregate, ModelArtifact, ModelUpdate
from fma_django.models.weights import WithWeights

WITH_WEIGHTS: tuple[type[WithWeights], ...] = (ModelUpdate, ModelAggregate, ModelArtifact, EvaluationRound)


def named_blobs(candidates: Iterable[str]) -> set[str]:
    """Return the blobs among these that a row names, as its weights or as the state of a strategy."""
    wanted, named = list(candidates), set[str]()
    for kind in WITH_WEIGHTS:
        rows: models.QuerySet[ModelUpdate] = kind._default_manager.filter(sha256__in=wanted)  # type: ignore[assignment]
        named.update(rows.values_list("sha256", flat=True))
    states = ModelAggregate.objects.filter(state_sha256__in=wanted)
    named.update(states.values_list("state_sha256", flat=True))
    return named
