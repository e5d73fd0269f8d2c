"""The signature of a client under one of its updates."""

from django.db import models

from fma_core.identity.keys import fingerprint
from fma_django.models.model_update import ModelUpdate


class UpdateSignature(models.Model):
    """The signature, and of what it covers all that the update itself does not say.

    public_key: the client's at that time. base_aggregate: the number that the client sent; None when it sent none.
    sha256: of the body as it travelled, which is that of the stored file unless the server had to convert it.
    """

    update = models.OneToOneField(
        ModelUpdate, on_delete=models.CASCADE, primary_key=True, related_name="signed"
    )
    public_key = models.CharField(max_length=64)
    base_aggregate = models.PositiveBigIntegerField(null=True)
    sha256 = models.CharField(max_length=64)
    nonce = models.CharField(max_length=32)
    # One signature is one update: sent again, also when its Idempotency-Key has been forgotten, it is refused.
    signature = models.CharField(max_length=128, unique=True)

    def __str__(self) -> str:
        return f"signature of update {self.update_id}"


def signer_of(update: ModelUpdate) -> str | None:
    """The fingerprint of the key that signed an update; None for one that is not signed."""
    signed: UpdateSignature | None = getattr(update, "signed", None)
    return None if signed is None else fingerprint(bytes.fromhex(signed.public_key))
