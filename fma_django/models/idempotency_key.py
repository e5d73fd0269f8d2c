"""The object that a request with an `Idempotency-Key` made, so that its repetition makes no second one."""

from django.db import models


class IdempotencyKey(models.Model):
    """scope: who asked and for what kind of thing. fingerprint: SHA-256 of what was asked. object_id: what it made."""

    scope = models.CharField(max_length=128)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    object_id = models.CharField(max_length=64)
    created_on = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        verbose_name = "idempotency key"
        constraints = [
            models.UniqueConstraint(fields=("scope", "key"), name="idempotency_key_once_per_scope"),
        ]

    def __str__(self) -> str:
        return f"{self.scope} → {self.object_id}"
