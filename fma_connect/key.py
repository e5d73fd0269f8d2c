"""A client's own Ed25519 key: what it proves, requests and signs with it. The private key never leaves the device."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

from fma_connect.digest import expected_sha256
from fma_connect.encoding import RequestBody
from fma_connect.exceptions import InvalidArgument
from fma_connect.outbox import Facts
from fma_core.errors import FMAError
from fma_core.identity.certificate import read_certificate
from fma_core.identity.keys import fingerprint, public_key_of, sign
from fma_core.identity.members import MAX_BYTES
from fma_core.identity.possession import CLIENT, NO_SERVER, REGISTRATION, REQUEST, prove_key, server_name
from fma_core.identity.update import NONCE_BYTES, UpdateStatement

__all__ = ["ClientKey", "read_certificate_file"]

FORMAT = 1
SIGNATURE = "FMA-Signature"


@dataclass(frozen=True)
class ClientKey:
    """private: the 32 secret bytes, in hexadecimal digits, as the credential file has them."""

    private: str = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """The short name of the public key, for people to compare."""
        return fingerprint(bytes.fromhex(self.public_key))

    @property
    def public_key(self) -> str:
        return public_key_of(self._private).hex()

    def at_registration(self, registration_key: str, *, server: str) -> dict[str, Any]:
        """The members of a registration. server: its URL."""
        return self._members(REGISTRATION, registration_key, _name_of(server))

    def of_client(self, client: str, *, server: str) -> dict[str, Any]:
        """The members of a registered client's key. client: its public id. server: its URL."""
        return self._members(CLIENT, client, _name_of(server))

    def request(self) -> dict[str, Any]:
        """The request for a certificate, as its file has it."""
        return {"format": FORMAT, **self._members(REQUEST, "", NO_SERVER)}

    def signature(self, client: str, body: RequestBody, facts: Facts) -> str:
        """The header that signs an update: a nonce and the signature. The same update has the same one again.

        Raises InvalidArgument for facts that no server takes, such as half of a surrogate pair.
        """
        nonce = hashlib.sha256(f"nonce {facts.key}".encode()).digest()[:NONCE_BYTES]
        signed = UpdateStatement(
            client=UUID(client),
            model=facts.params["federated_model"],
            base_aggregate=facts.params.get("base_aggregate"),
            num_examples=facts.params.get("num_examples", 1),
            metrics=facts.metrics or {},
            sha256=bytes.fromhex(expected_sha256(body.headers["Content-Digest"]) or ""),
            nonce=nonce,
        )
        try:
            content = signed.encode()
        except (ValueError, OverflowError) as error:
            raise InvalidArgument(f"the facts of the update cannot be signed: {error}") from error
        return f"{nonce.hex()} {sign(self._private, content).hex()}"

    @property
    def _private(self) -> bytes:
        return bytes.fromhex(self.private)

    def _members(self, purpose: str, occasion: str, server: str) -> dict[str, Any]:
        proof = prove_key(self._private, purpose, occasion, server=server)
        return {"public_key": self.public_key, "key_proof": proof.hex()}


def _name_of(url: str) -> str:
    return server_name(httpx.URL(url).netloc.decode())


def read_certificate_file(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The certificate in a file, as it is sent. Raises InvalidArgument."""
    try:
        with open(path, "rb") as file:
            return read_certificate(file.read(MAX_BYTES + 1)).to_json()
    except OSError as error:
        raise InvalidArgument(f"certificate {os.fspath(path)} cannot be read: {error.strerror}") from error
    except FMAError as error:
        raise InvalidArgument(f"certificate {os.fspath(path)}: {error.message}") from error


def write_request(path: str | os.PathLike[str], request: Mapping[str, Any]) -> None:
    """Write a request into a new file. Raises InvalidArgument."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(f"{json.dumps(request, indent=2)}\n")
    except OSError as error:
        raise InvalidArgument(f"{os.fspath(path)} cannot be made: {error.strerror}") from error
