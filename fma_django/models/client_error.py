"""An error on a client, as the client reported it."""

from django.db import models

from fma_django.models.client import Client
from fma_django.models.federated_model import FederatedModel

LONGEST_MESSAGE = 2000
LONGEST_TRACEBACK = 8000


class ClientError(models.Model):
    """federated_model, round_number: what it was doing, where it says so. traceback: only when its user wants that."""

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="errors")
    federated_model = models.ForeignKey(
        FederatedModel, on_delete=models.CASCADE, null=True, blank=True, related_name="client_errors"
    )
    round_number = models.PositiveIntegerField(null=True, blank=True)
    code = models.CharField(max_length=64)
    message = models.CharField(max_length=LONGEST_MESSAGE, blank=True)
    traceback = models.CharField(max_length=LONGEST_TRACEBACK, blank=True)
    created_on = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ("-id",)
        verbose_name = "client error"
        constraints = [
            models.CheckConstraint(name="client_error_has_code", condition=~models.Q(code="")),
            models.CheckConstraint(
                name="client_error_round_only_of_model",
                condition=models.Q(round_number__isnull=True) | models.Q(federated_model__isnull=False),
            ),
        ]
        indexes = [models.Index(fields=("client", "-created_on"), name="client_error_newest_of_client")]

    def __str__(self) -> str:
        return f"{self.code} {self.pk}"
