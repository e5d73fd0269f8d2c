"""The progress of forwarding the metrics of a model to a place outside."""

from django.db import models

from fma_django.models.federated_model import FederatedModel


class Forwarding(models.Model):
    """The progress of one place with one model.

    target: "mlflow" or "tensorboard". run: what the place calls the experiment. round_number: the last one sent.
    busy_until: while one worker sends, no other does, until it is done or this moment has passed (UTC).
    """

    federated_model = models.ForeignKey(FederatedModel, on_delete=models.CASCADE, related_name="forwardings")
    target = models.CharField(max_length=16)
    run = models.CharField(max_length=255, blank=True)
    round_number = models.PositiveIntegerField(default=0)
    busy_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=("federated_model", "target"), name="forwarding_once_per_model_and_target"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.target} of {self.federated_model}"
