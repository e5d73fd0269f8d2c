"""The proof that whoever names a public key has the private one, made for one occasion."""

from fma_core.errors import InvalidSignature
from fma_core.identity.encoding import statement
from fma_core.identity.keys import is_signed, public_key_of, sign

REGISTRATION = "registration"
"""A client registers; the occasion is the Idempotency-Key of its registration."""
CLIENT = "client"
"""A registered client adds its key; the occasion is its public id."""
REQUEST = "certificate request"
"""A client asks its organisation for a certificate; without an occasion."""

LABEL = "fma 1 client key"


def prove_key(private_key: bytes, purpose: str, occasion: str) -> bytes:
    """The proof for this purpose and occasion."""
    return sign(private_key, _statement(public_key_of(private_key), purpose, occasion))


def require_proof(public_key: bytes, proof: bytes, purpose: str, occasion: str) -> None:
    """Raises InvalidSignature for a proof of another key, purpose or occasion."""
    if not is_signed(public_key, _statement(public_key, purpose, occasion), proof):
        raise InvalidSignature(
            "the proof is not signed with the private key of this public key for this purpose"
        )


def _statement(public_key: bytes, purpose: str, occasion: str) -> bytes:
    return statement(LABEL, purpose.encode(), occasion.encode(), public_key)
