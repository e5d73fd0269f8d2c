"""Signatures under updates, against what the record says of these."""

from typing import Any
from uuid import UUID

from fma_core.identity.keys import is_signed
from fma_core.identity.update import UpdateStatement
from fma_django.models import UpdateSignature


def is_right(
    signed: UpdateSignature,
    *,
    client_id: UUID,
    federated_model_id: int,
    num_examples: int,
    metrics: dict[str, Any],
) -> bool:
    """Whether it is the signature of its key over an update with these facts."""
    statement = UpdateStatement(
        client=client_id,
        model=federated_model_id,
        base_aggregate=signed.base_aggregate,
        num_examples=num_examples,
        metrics=metrics,
        sha256=bytes.fromhex(signed.sha256),
        nonce=bytes.fromhex(signed.nonce),
    )
    public_key, signature = bytes.fromhex(signed.public_key), bytes.fromhex(signed.signature)
    return is_signed(public_key, statement.encode(), signature)


def is_still_right(signed: UpdateSignature) -> bool:
    """Whether a signature that was kept is right for its update, as the record has it now."""
    update = signed.update
    # 0 is the initial model, which has no aggregate.
    is_of_its_base = signed.base_aggregate in (None, update.base_aggregate_id or 0)
    return is_of_its_base and is_right(
        signed,
        client_id=update.client_id,
        federated_model_id=update.federated_model_id,
        num_examples=update.num_examples,
        metrics=update.metrics,
    )
