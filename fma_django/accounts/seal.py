"""Secrets that the server must read again, encrypted with a key of FMA_SECRET_KEY: a dump of the database lacks it.

`cryptography` is loaded with the first of them: it takes 5 MB.
"""

import base64
from functools import lru_cache
from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


class Unreadable(Exception):
    """The text was sealed with another FMA_SECRET_KEY, or changed since."""


def seal(text: str) -> str:
    return _key(settings.SECRET_KEY).encrypt(text.encode()).decode()


def unseal(sealed: str) -> str:
    """The text that was sealed. Raises Unreadable."""
    from cryptography.fernet import InvalidToken

    try:
        return _key(settings.SECRET_KEY).decrypt(sealed).decode()
    except InvalidToken as error:
        raise Unreadable("sealed with another FMA_SECRET_KEY, or changed since") from error


@lru_cache(maxsize=2)
def _key(secret_key: str) -> "Fernet":
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    # Nothing else that is made of the secret key has this purpose.
    derived = HKDF(SHA256(), length=32, salt=None, info=b"fma: sealed texts").derive(secret_key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
