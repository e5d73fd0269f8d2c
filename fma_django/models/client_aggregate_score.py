"""A client's validation results for an aggregate."""

from django.db import models

from fma_django.models.client import Client
from fma_django.models.model_aggregate import ModelAggregate
from fma_django.models.stored_json import StoredJson


class ClientAggregateScore(models.Model):
    aggregate = models.ForeignKey(ModelAggregate, on_delete=models.CASCADE, related_name="client_scores")
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="aggregate_scores")
    validation_results = StoredJson()
    created_on = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        verbose_name = "client aggregate score"
        constraints = [
            models.UniqueConstraint(
                fields=("aggregate", "client"), name="score_once_per_client_and_aggregate"
            ),
        ]

    def __str__(self) -> str:
        return f"score {self.pk}"
