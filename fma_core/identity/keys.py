"""Ed25519 keys as bytes and as text, and signatures with them.

Source: RFC 8032. Stricter than it: a public key must be the canonical bytes of a point on the curve, and not one of the
few under which anything can be signed.
"""

import base64
import hashlib
import re
import secrets

from fma_core.errors import InvalidKey, InvalidSignature

KEY_BYTES = 32
SIGNATURE_BYTES = 64
KEY = re.compile("[0-9a-f]{64}")
SIGNATURE = re.compile("[0-9a-f]{128}")

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# The y of all points whose order divides 8: those of order 4, 1, 2, and 8.
_SMALL_ORDER = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})


def new_private_key() -> bytes:
    """The 32 secret bytes of a new key."""
    return secrets.token_bytes(KEY_BYTES)


# `cryptography` takes 80 ms to load, a fifth of a small command: only who signs or verifies pays for it.


def public_key_of(private_key: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def sign(private_key: bytes, signed: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private_key).sign(signed)


def is_signed(public_key: bytes, signed: bytes, signature: bytes) -> bool:
    """Whether the signature is one of this key over these bytes. public_key: one that `require_public_key` let pass."""
    from cryptography.exceptions import InvalidSignature as Wrong
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except (Wrong, ValueError):
        return False
    return True


def public_key_in(text: object) -> bytes:
    """The public key in 64 lower-case hexadecimal digits. Raises InvalidKey."""
    if not isinstance(text, str) or not KEY.fullmatch(text):
        raise InvalidKey(
            f"an Ed25519 public key is written in 64 lower-case hexadecimal digits; found {_shown(text)}",
            field="public_key",
        )
    public_key = bytes.fromhex(text)
    require_public_key(public_key)
    return public_key


def require_public_key(public_key: bytes) -> None:
    """Raises InvalidKey for bytes that no key has, that are not its canonical ones, or under which anybody can sign."""
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    if len(public_key) != KEY_BYTES or y >= _P or not _is_on_curve(y):
        raise InvalidKey("these bytes are no Ed25519 public key", field="public_key")
    if y in _SMALL_ORDER:
        raise InvalidKey("a public key of small order protects nothing", field="public_key")


def signature_in(text: object) -> bytes:
    """The signature in 128 lower-case hexadecimal digits. Raises InvalidSignature."""
    if not isinstance(text, str) or not SIGNATURE.fullmatch(text):
        raise InvalidSignature(
            f"an Ed25519 signature is written in 128 lower-case hexadecimal digits; found {_shown(text)}"
        )
    return bytes.fromhex(text)


def fingerprint(public_key: bytes) -> str:
    """The short name of a public key, for people to compare: `SHA256:` and 43 characters."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(public_key).digest()).decode().rstrip('=')}"


def _is_on_curve(y: int) -> bool:
    """Whether some x fulfils -x² + y² = 1 + d x² y²: then (y² - 1)(d y² + 1) is a square."""
    square = y * y % _P
    return pow((square - 1) * (_D * square + 1) % _P, (_P - 1) // 2, _P) in (0, 1)


def _shown(text: object) -> str:
    return repr(text[:40]) if isinstance(text, str) else f"a {type(text).__name__}"
