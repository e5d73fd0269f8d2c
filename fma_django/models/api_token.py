"""API tokens, with which scripts act as a user: a token's hash, and how far it reaches."""

from typing import ClassVar

from django.conf import settings
from django.db import models

from fma_django.models.federated_model import FederatedModel


class TokenScope(models.TextChoices):
    """The requests that a token allows; each allows those of the ones before it."""

    READ = "read", "read"
    WRITE = "write", "write, but not users, roles, organisations and tokens"
    ADMIN = "admin", "everything that the user may"


class ApiToken(models.Model):
    """A user's token for the API. The token itself is not stored: see `fma_django.accounts.tokens`."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    # Processes of the version before write neither.
    name = models.CharField(max_length=100, default="login", db_default="login")
    scope = models.CharField(
        max_length=8, choices=TokenScope, default=TokenScope.ADMIN, db_default=TokenScope.ADMIN
    )
    federated_model = models.ForeignKey(
        FederatedModel,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="api_tokens",
        help_text="The only model that the token reaches; empty: all that the user may.",
    )
    expires_on = models.DateTimeField(null=True, blank=True)
    last_used_on = models.DateTimeField(null=True, blank=True, editable=False)
    salt = models.CharField(
        max_length=32,
        blank=True,
        editable=False,
        help_text="For the token of a login, which is derived from it; empty for a random token.",
    )
    key_hash = models.CharField(max_length=64, unique=True, editable=False)
    created_on = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_on",)
        verbose_name = "API token"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=("user", "name"), name="api_token_name_once_per_user"),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.user}"
