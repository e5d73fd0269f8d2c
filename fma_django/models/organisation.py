"""The organisation that owns clients: a hospital, a bank, a company with phones."""

from django.conf import settings
from django.db import models


class Organisation(models.Model):
    """members: the users who may see what the organisation's own clients reported."""

    name = models.CharField(max_length=255, unique=True)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="organisations", blank=True)
    created_on = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name
