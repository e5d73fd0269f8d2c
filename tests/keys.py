"""Keys of clients and organisations, for the tests of the server and of the client."""

import time
from dataclasses import dataclass, field
from typing import Any

from fma_core.identity.certificate import Certificate, issue_certificate
from fma_core.identity.keys import new_private_key, public_key_of
from fma_core.identity.possession import CLIENT, NO_SERVER, REGISTRATION, REQUEST, prove_key

SERVER = "testserver"  # the name that Django's test client calls
REGISTRATION_KEY = "4d8a2f1e-0000-4000-8000-123456789abc"


@dataclass(frozen=True)
class Key:
    """A private key, and what its owner makes with it."""

    private: bytes = field(default_factory=new_private_key)

    @property
    def public(self) -> bytes:
        return public_key_of(self.private)

    def at_registration(
        self, idempotency_key: str = REGISTRATION_KEY, *, server: str = SERVER, **more: Any
    ) -> dict[str, Any]:
        """The members of a registration."""
        return self._proved(REGISTRATION, idempotency_key, server) | more

    def of_client(self, client: Any, *, server: str = SERVER, **more: Any) -> dict[str, Any]:
        """The members of a key that a registered client adds."""
        return self._proved(CLIENT, str(client.pk), server) | more

    def request_file(self, **more: Any) -> dict[str, Any]:
        return {"format": 1} | self._proved(REQUEST, "", NO_SERVER) | more

    def certify(self, other: "Key", *, days: float = 30, age_days: float = 1, **said: Any) -> Certificate:
        """A certificate for another key."""
        now = int(time.time())
        said = {"organisation": "hospital", "label": "scanner", **said}
        return issue_certificate(
            self.private,
            other.public,
            not_before=now - int(age_days * 86400),
            not_after=now + int(days * 86400),
            **said,
        )

    def _proved(self, purpose: str, occasion: str, server: str) -> dict[str, Any]:
        return {
            "public_key": self.public.hex(),
            "key_proof": prove_key(self.private, purpose, occasion, server=server).hex(),
        }
