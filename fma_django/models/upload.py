"""A body that comes in parts, before it becomes an update or an initial model."""

import uuid
from typing import cast

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q

from fma_core.aggregation.aggregators.aggregator import MAX_NUM_EXAMPLES
from fma_django.models.client import Client
from fma_django.models.federated_model import FederatedModel
from fma_django.models.model_aggregate import ModelAggregate
from fma_django.models.model_artifact import ModelArtifact
from fma_django.models.model_update import ModelUpdate
from fma_django.models.stored_json import StoredJson


class Upload(models.Model):
    """A body as it was announced when its upload began. The size of its file in the spool is how much has arrived.

    client, developer: its sender, one of the two. A client sends an update, a developer the initial model.
    base_is_known: whether an update has a base; that is the initial model when there is no base_aggregate.
    base_was_sent: whether its sender named it; otherwise it follows from the rounds that the client has joined.
    signature: the client's under the update, as the header has it; "" without one.
    size_bytes, content_encoding, sha256: of the bytes as they travel. spool: the id of the folder that has its file;
    None for an upload that began before they had ids. update, artifact: what became of it, once it is complete;
    kept until it expires, so that the same upload is the same update or artifact.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(
        Client, on_delete=models.CASCADE, null=True, blank=True, related_name="uploads"
    )
    developer = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, blank=True, related_name="uploads"
    )
    federated_model = models.ForeignKey(FederatedModel, on_delete=models.CASCADE, related_name="uploads")
    base_aggregate = models.ForeignKey(
        ModelAggregate, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    base_is_known = models.BooleanField(default=False)
    base_was_sent = models.BooleanField(default=False, db_default=False)
    num_examples = models.PositiveBigIntegerField(default=1)
    metrics = StoredJson(default=dict, blank=True)
    size_bytes = models.PositiveBigIntegerField()
    content_encoding = models.CharField(max_length=16, blank=True)
    sha256 = models.CharField(max_length=64, blank=True)
    signature = models.CharField(max_length=161, blank=True, default="", db_default="")
    spool = models.UUIDField(null=True, blank=True, editable=False)
    update = models.ForeignKey(
        ModelUpdate, on_delete=models.CASCADE, null=True, blank=True, related_name="uploads"
    )
    artifact = models.ForeignKey(
        ModelArtifact, on_delete=models.CASCADE, null=True, blank=True, related_name="uploads"
    )
    created_on = models.DateTimeField(auto_now_add=True)
    expires_on = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ("-created_on",)
        constraints = [
            models.CheckConstraint(name="upload_has_bytes", condition=Q(size_bytes__gte=1)),
            models.CheckConstraint(
                name="upload_num_examples_positive",
                condition=Q(num_examples__gte=1, num_examples__lte=MAX_NUM_EXAMPLES),
            ),
            models.CheckConstraint(
                name="upload_of_client_or_developer",
                condition=Q(client__isnull=False, developer__isnull=True, artifact__isnull=True)
                | Q(client__isnull=True, developer__isnull=False, update__isnull=True),
            ),
        ]
        indexes = [
            models.Index(
                fields=("client", "created_on"),
                condition=Q(update__isnull=True),
                name="upload_unfinished_of_client",
            )
        ]

    def __str__(self) -> str:
        return f"upload {self.pk}"

    @property
    def sender(self) -> Client | User:
        return cast("Client | User", self.client or self.developer)

    @property
    def is_finished(self) -> bool:
        return self.update_id is not None or self.artifact_id is not None
