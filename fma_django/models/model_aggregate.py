"""The result of a round."""

from django.db import models

from fma_django.models.federated_model import FederatedModel
from fma_django.models.weights import WithWeights


class ModelAggregate(WithWeights):
    """One step of a model; `parent` is the aggregate before it, so that the aggregates of a model are a tree.

    Rewinding makes one without a round: a copy of its parent, from which the next round goes on. What came after that
    parent is abandoned: no update may be trained from it any more.
    """

    federated_model = models.ForeignKey(FederatedModel, on_delete=models.CASCADE, related_name="aggregates")
    parent = models.ForeignKey(
        "self", on_delete=models.CASCADE, null=True, blank=True, related_name="children"
    )
    state_sha256 = models.CharField(
        max_length=64,
        blank=True,
        db_index=True,
        editable=False,
        help_text="The SHA-256 of the strategy's state for the next round, such as an optimiser's moments.",
    )
    state_size_bytes = models.PositiveBigIntegerField(null=True, blank=True, editable=False)
    is_abandoned = models.BooleanField(
        default=False, editable=False, help_text="The model was rewound to an aggregate before it."
    )
    validation_score = models.FloatField(null=True, blank=True)
    created_on = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=("federated_model", "-id"), name="aggregate_newest_of_model")]

    def __str__(self) -> str:
        return f"aggregate {self.pk}"
