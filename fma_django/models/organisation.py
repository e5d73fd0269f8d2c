"""The organisation that owns clients: a hospital, a bank, a company with phones."""

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import models


class Organisation(models.Model):
    """members: the users who may see what the organisation's own clients reported; a role lets them do more."""

    name = models.CharField(max_length=255, unique=True)
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL, related_name="organisations", blank=True, through="Membership"
    )
    created_on = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        permissions = (("use_admin_site", "Can use the admin site"),)

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A user of an organisation, and the role that counts for the organisation's own clients."""

    organisation = models.ForeignKey(Organisation, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.ForeignKey(
        Group,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="memberships",
        help_text="What the user may do with the organisation's clients; empty: read their own results only.",
    )

    class Meta:
        ordering = ("organisation", "user")
        # The table of a relation that had no role: Django's names for it stay.
        db_table = "fma_django_organisation_members"
        unique_together = (("organisation", "user"),)

    def __str__(self) -> str:
        return f"{self.user} of {self.organisation}"
