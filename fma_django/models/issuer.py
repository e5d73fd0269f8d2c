"""A key with which an organisation signs the keys of its clients."""

from django.db import models

from fma_core.identity.keys import fingerprint
from fma_django.models.organisation import Organisation


class Issuer(models.Model):
    """The public half, as an operator entered it; the private half never is on this server.

    An organisation may have several, so that it can begin with a new one before the old one ends.
    organisation: None once it was deleted. A revocation must outlive it: the key may be in strange hands.
    """

    organisation = models.ForeignKey(
        Organisation, on_delete=models.SET_NULL, null=True, related_name="issuers"
    )
    public_key = models.CharField(
        max_length=64,
        unique=True,
        help_text="The Ed25519 key in 64 hexadecimal digits, from its public file.",
    )
    created_on = models.DateTimeField(auto_now_add=True)
    expires_on = models.DateTimeField(
        null=True,
        blank=True,
        help_text="The time from which its certificates count for nothing; empty: never.",
    )
    revoked_on = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return self.fingerprint

    @property
    def fingerprint(self) -> str:
        return fingerprint(bytes.fromhex(self.public_key))
