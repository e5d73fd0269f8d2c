"""The counts of one client in one evaluation."""

from typing import Any

from django.db import models

from fma_core.evaluation import from_json, metrics_of
from fma_django.models.client import Client
from fma_django.models.evaluation_round import EvaluationRound
from fma_django.models.organisation import Organisation
from fma_django.models.stored_json import StoredJson


class EvaluationResult(models.Model):
    """Nobody sees it but the client itself and the members of the organisation that it belonged to then.

    is_counted: whether it is part of what is shown; decided when the evaluation closes.
    """

    evaluation = models.ForeignKey(EvaluationRound, on_delete=models.CASCADE, related_name="results")
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="evaluation_results")
    organisation = models.ForeignKey(
        Organisation, on_delete=models.SET_NULL, null=True, blank=True, related_name="evaluation_results"
    )
    statistics = StoredJson()
    is_counted = models.BooleanField(default=False)
    created_on = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        verbose_name = "evaluation result"
        constraints = [
            models.UniqueConstraint(
                fields=("evaluation", "client"), name="evaluation_result_once_per_client"
            ),
        ]

    def __str__(self) -> str:
        return f"result {self.pk}"

    @property
    def contributor(self) -> str:
        """The contributor that it counts for: the organisation, or the client when it belongs to none."""
        if self.organisation_id is None:
            return f"client {self.client_id}"
        return f"organisation {self.organisation_id}"

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of these statistics alone."""
        return metrics_of(from_json(self.evaluation.asked, self.statistics))
