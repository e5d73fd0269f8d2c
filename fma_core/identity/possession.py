"""The proof that whoever names a public key has the private one, made for one occasion and one server.

Without the server in it, one that a client calls could register the client's key at another server.
"""

from collections.abc import Iterable

from fma_core.errors import InvalidSignature
from fma_core.identity.encoding import statement
from fma_core.identity.keys import is_signed, public_key_of, sign

REGISTRATION = "registration"
"""A client registers; the occasion is the Idempotency-Key of its registration."""
CLIENT = "client"
"""A registered client adds its key; the occasion is its public id."""
REQUEST = "certificate request"
"""A client asks its organisation for a certificate; without an occasion, and for no server."""

NO_SERVER = ""
LABEL = "fma 1 client key"


def prove_key(private_key: bytes, purpose: str, occasion: str, *, server: str) -> bytes:
    """The proof for this purpose and occasion. server: its name as `server_name` gives it, or NO_SERVER."""
    return sign(private_key, _statement(public_key_of(private_key), purpose, server, occasion))


def require_proof(
    public_key: bytes, proof: bytes, purpose: str, occasion: str, *, servers: Iterable[str]
) -> None:
    """Require a proof for one of these servers. Raises InvalidSignature for one of another key, purpose or occasion."""
    asked = tuple(servers)
    if any(
        is_signed(public_key, _statement(public_key, purpose, server, occasion), proof) for server in asked
    ):
        return
    raise InvalidSignature(
        "the proof is not signed with the private key of this public key for this purpose"
        + (f" and the server {asked[0]!r}" if any(asked) else "")
    )


def server_name(host: str) -> str:
    """The host name of a server, from the authority of a URL or a Host header.

    Without the port, which proxies change, and without a dot at its end; in lower case.
    """
    name = host.lower()
    if ":" in name and not name.endswith("]"):
        name = name.rpartition(":")[0]
    return name.removesuffix(".")


def _statement(public_key: bytes, purpose: str, server: str, occasion: str) -> bytes:
    return statement(LABEL, purpose.encode(), server.encode(), occasion.encode(), public_key)
