"""A worker process, and when it was last seen alive."""

from django.db import models


class Worker(models.Model):
    name = models.CharField(max_length=255, unique=True, help_text="Host and process number.")
    started_on = models.DateTimeField(auto_now_add=True)
    seen_on = models.DateTimeField(db_index=True)
    key_fingerprint = models.CharField(max_length=64, default="", db_default="", blank=True, editable=False)

    class Meta:
        ordering = ("-seen_on",)

    def __str__(self) -> str:
        return self.name
