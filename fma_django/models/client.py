"""An edge device or an organisation that trains."""

import hashlib
import uuid

from django.db import models
from django.db.models import Q

from fma_core.identity.keys import fingerprint
from fma_django.models.issuer import Issuer
from fma_django.models.organisation import Organisation
from fma_django.models.stored_json import StoredJson
from fma_django.models.tag import Tag


class Client(models.Model):
    """A client, known to everybody by `id` and to itself by its credential.

    The credential is the uuid that FMA's clients send as `CLIENT-UUID`. It is a bearer secret of 122 random bits,
    so an unsalted SHA-256 is enough to keep it and allows one indexed look-up.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    credential_hash = models.CharField(max_length=64, unique=True, editable=False)
    next_credential_hash = models.CharField(max_length=64, unique=True, null=True, blank=True, editable=False)
    """The hash of the credential that replaces the present one at its first use."""
    superseded_on = models.DateTimeField(
        null=True,
        editable=False,
        help_text="The time from which its credential is refused, because it asked for a next one.",
    )
    is_active = models.BooleanField(
        default=True, help_text="A client that is not active is refused everywhere."
    )
    subject_hash = models.CharField(
        max_length=64,
        unique=True,
        null=True,
        blank=True,
        editable=False,
        help_text="The hash of the issuer and the subject of the JWT that it enrolled with.",
    )
    awaits_approval = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text="Whether it has registered, and nobody has approved or refused it yet.",
    )
    name = models.CharField(max_length=255, blank=True, help_text="The name that its operators gave it.")
    organisation = models.ForeignKey(
        Organisation, on_delete=models.SET_NULL, null=True, blank=True, related_name="clients"
    )
    tags = models.ManyToManyField(Tag, related_name="clients", blank=True)
    last_seen_on = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="The last time that it joined, reported or sent an update.",
    )
    latest_telemetry = models.ForeignKey(
        "ClientTelemetry", on_delete=models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    invitation = models.ForeignKey(
        "Invitation",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="clients",
        help_text="The invitation that it registered with first.",
    )
    public_key = models.CharField(  # many have none, and no two the same
        max_length=64,
        unique=True,
        null=True,
        blank=True,
        editable=False,
        help_text="Its Ed25519 key, in hexadecimal digits.",
    )
    key_added_on = models.DateTimeField(null=True, blank=True, editable=False)
    certificate = StoredJson(
        null=True, blank=True, editable=False, help_text="The certificate of its organisation for this key."
    )
    issuer = models.ForeignKey(
        Issuer,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="clients",
        help_text="The key that signed the certificate.",
    )
    created_on = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_on",)
        constraints = [
            # So that whatever leaves out clients that are not active leaves out those that wait, too.
            models.CheckConstraint(
                name="client_not_active_while_it_awaits_approval",
                condition=Q(awaits_approval=False) | Q(is_active=False),
            ),
        ]

    def __str__(self) -> str:
        return self.name or str(self.id)

    @property
    def fingerprint(self) -> str:
        """The short name of its key; "" without one."""
        return "" if self.public_key is None else fingerprint(bytes.fromhex(self.public_key))

    # The attributes that Django and DRF read of every caller.
    is_authenticated = True
    is_anonymous = False
    is_staff = False
    is_superuser = False


def hash_credential(credential: uuid.UUID) -> str:
    return hashlib.sha256(credential.bytes).hexdigest()
