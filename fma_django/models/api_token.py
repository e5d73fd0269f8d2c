"""API tokens, with which scripts act as a user: a token's hash and the salt that it is derived from."""

from django.conf import settings
from django.db import models


class ApiToken(models.Model):
    """A user's token for the API. The token itself is nowhere: see `fma_django.clients.tokens`."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_token")
    salt = models.CharField(max_length=32, editable=False)
    key_hash = models.CharField(max_length=64, unique=True, editable=False)
    created_on = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_on",)
        verbose_name = "API token"

    def __str__(self) -> str:
        return f"token of {self.user}"
