"""The configuration of an experiment as it was at one time."""

from django.conf import settings
from django.db import models

from fma_django.models.federated_model import FederatedModel
from fma_django.models.stored_json import StoredJson


class ConfigVersion(models.Model):
    """One version of `CONFIGURATION`; each round names the one that it ran with.

    changed_by: null for what the server or somebody with access to its machine did.
    """

    federated_model = models.ForeignKey(
        FederatedModel, on_delete=models.CASCADE, related_name="config_versions"
    )
    number = models.PositiveIntegerField()
    configuration = StoredJson()
    changed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    changed_on = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-number",)
        verbose_name = "configuration"
        constraints = [
            models.UniqueConstraint(
                fields=("federated_model", "number"), name="config_number_once_per_model"
            ),
        ]

    def __str__(self) -> str:
        return f"configuration {self.number}"
