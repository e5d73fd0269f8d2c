"""An invitation to clients: a secret that registers some of them, whatever FMA_REGISTRATION says."""

import hashlib
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.deletion import Collector
from django.utils import timezone

from fma_django.models.client import Client
from fma_django.models.federated_model import FederatedModel
from fma_django.models.organisation import Organisation
from fma_django.models.tag import Tag


def revoke(collector: Collector, field: Any, invitations: Any, using: str) -> None:
    """As `on_delete`: revoke the invitations, and keep them: a client that came by one was approved by nobody."""
    collector.add_field_update(field, None, invitations)
    collector.add_field_update(Invitation._meta.get_field("revoked_on"), timezone.now(), invitations)


class Invitation(models.Model):
    """Clients that it registers belong to its organisation, have its tags, and may train its models.

    The token is a bearer secret of 256 random bits, of which only an unsalted SHA-256 is kept.
    created_by: None for one made at the command line, and for one that ended with its user.
    """

    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    federated_models = models.ManyToManyField(FederatedModel, related_name="invitations")
    organisation = models.ForeignKey(
        Organisation, on_delete=revoke, null=True, blank=True, related_name="invitations"
    )
    tags = models.ManyToManyField(Tag, related_name="invitations", blank=True)
    uses = models.PositiveIntegerField(help_text="The number of clients that it is for.")
    uses_left = models.PositiveIntegerField()
    used_by = models.ManyToManyField(
        Client, related_name="used_invitations", help_text="The clients that it has registered with a model."
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=revoke, null=True, blank=True, related_name="invitations"
    )
    created_on = models.DateTimeField(auto_now_add=True)
    expires_on = models.DateTimeField()
    revoked_on = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.CheckConstraint(
                name="invitation_uses_left_at_most_all", condition=Q(uses_left__lte=models.F("uses"))
            ),
        ]

    def __str__(self) -> str:
        return f"invitation {self.pk}"


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
