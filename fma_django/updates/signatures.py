"""The signature of a client under an update: checked before the body travels, and kept with the update.

It covers the announced digest of the body, so checking it needs none of the bytes; a body of another digest is refused
in any case.
"""

import re
from dataclasses import dataclass
from uuid import UUID

from fma_core.errors import InvalidSignature
from fma_django import conf
from fma_django.errors import SignatureReplayed, SignatureRequired
from fma_django.models import ModelUpdate, UpdateSignature
from fma_django.record.signed_updates import is_right
from fma_django.updates.facts import UpdateFacts
from fma_django.updates.standing import Standing

TEXT = re.compile("([0-9a-f]{32}) ([0-9a-f]{128})")


@dataclass(frozen=True, slots=True)
class SentSignature:
    """A signature, and what it covers beside the facts of the update.

    text: the nonce and the signature, in the form of TEXT. sha256: of the body as it travels, in hexadecimal digits.
    base_aggregate: as the client sent it, which need not be that of the facts.
    """

    text: str
    sha256: str
    base_aggregate: int | None


def are_looked_at() -> bool:
    """Whether this server looks at signatures."""
    return conf.current().signed_updates != "off"


def require_signature(
    sent: SentSignature | None,
    standing: Standing,
    client_id: UUID,
    federated_model_id: int,
    facts: UpdateFacts,
) -> UpdateSignature | None:
    """The signature to be kept with the update; None for one that needs none and has none.

    Raises SignatureRequired, InvalidSignature.
    """
    if not are_looked_at():
        return None
    if sent is None:
        require_none_needed(standing)
        return None
    if standing.public_key is None:
        raise InvalidSignature(
            "the update is signed, and its client has no key here; add it by POST clients/me/key/"
        )
    nonce, signature = sent.text.split(" ")
    kept = UpdateSignature(
        public_key=standing.public_key,
        base_aggregate=sent.base_aggregate,
        sha256=sent.sha256,
        nonce=nonce,
        signature=signature,
    )
    if not is_right(
        kept,
        client_id=client_id,
        federated_model_id=federated_model_id,
        num_examples=facts.num_examples,
        metrics=facts.metrics,
    ):
        raise InvalidSignature(
            "the signature is not one of the client's key over this update: its client, model, base_aggregate, "
            "num_examples, metrics, digest and nonce"
        )
    return kept


def require_none_needed(standing: Standing) -> None:
    """Raises SignatureRequired."""
    policy = conf.current().signed_updates
    # A misspelt word in the settings of a Django project requires signatures, too.
    if policy == "off" or (policy == "known_keys" and standing.public_key is None):
        return
    raise SignatureRequired(
        "this server takes no unsigned update of a client that has a key (FMA_SIGNED_UPDATES): send FMA-Signature"
        if standing.public_key is not None
        else "this server takes signed updates only (FMA_SIGNED_UPDATES): add a key by POST clients/me/key/"
    )


def require_still_signed(signed: UpdateSignature | None, standing: Standing) -> None:
    """Require that the client still has the key that was looked at before the body travelled.

    Raises SignatureRequired, InvalidSignature.
    """
    if signed is None:
        require_none_needed(standing)
    elif signed.public_key != standing.public_key:
        raise InvalidSignature("the client's key was replaced while the update was on its way")


def keep_signature(signed: UpdateSignature, update: ModelUpdate) -> None:
    """Keep the signature with the update, in whose transaction the open round of the model is locked.

    Raises SignatureReplayed.
    """
    # The lock orders all updates of the model, which the signature names: no other one can come in between.
    if UpdateSignature.objects.filter(signature=signed.signature).exists():
        raise SignatureReplayed(
            "an earlier update came with this signature; draw a new nonce for each update"
        )
    signed.update = update
    signed.save(force_insert=True)


def keep_first_of_key(signed: UpdateSignature, update: ModelUpdate) -> None:
    """Keep the signature with an update that has come before, unless the same key has signed it then.

    It may have come unsigned, or signed with a key that was replaced since. Raises SignatureReplayed.
    """
    kept = UpdateSignature.objects.filter(update=update)
    if not kept.filter(public_key=signed.public_key).exists():
        kept.delete()
        keep_signature(signed, update)
