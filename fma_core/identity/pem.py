"""Private keys as PEM files (PKCS #8), as openssl reads and writes them, with a passphrase or without."""

from fma_core.errors import InvalidKey


def private_key_pem(private_key: bytes, passphrase: str | None = None) -> str:
    """The text of the file. Raises InvalidKey for a passphrase that cannot be used."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    key = Ed25519PrivateKey.from_private_bytes(private_key)
    try:
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase.encode())
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    except ValueError:  # the limit of openssl, and half of a surrogate pair
        raise InvalidKey("a passphrase is a text of 1 to 1023 bytes") from None
    return pem.decode()


def read_private_key(pem: bytes, passphrase: str | None = None) -> bytes:
    """The 32 secret bytes of an Ed25519 key. Raises InvalidKey, whose sentence holds nothing of the file."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(pem, None if passphrase is None else passphrase.encode())
    except TypeError as error:
        needs = "needs a passphrase" if passphrase is None else "has no passphrase"
        raise InvalidKey(f"the private key {needs}") from error
    except (ValueError, UnsupportedAlgorithm):
        wrong = "" if passphrase is None else ", or the passphrase is wrong"
        raise InvalidKey(f"this is no PEM file of a private key{wrong}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidKey("the private key is of another kind than Ed25519")
    return key.private_bytes_raw()
