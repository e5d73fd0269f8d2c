"""The organisations that a client trusts, and the check of another client's key against their certificates.

The list is the client's own: a file that its people give it, and nothing that the server says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fma_connect.exceptions import InvalidArgument
from fma_core.errors import InvalidKey
from fma_core.identity.certificate import certificate_of, require_certificate
from fma_core.identity.keys import fingerprint, public_key_in
from fma_core.identity.members import read_members

__all__ = ["TrustedIssuers", "read_trusted_issuers"]

FORMAT = 1


@dataclass(frozen=True)
class TrustedIssuers:
    """organisations: their names by their public keys."""

    organisations: Mapping[bytes, str]

    def verify_peer(self, public_key: str, certificate: object, *, now: float | None = None) -> str:
        """Verify another client's key; return the organisation that vouches for it, as this client's list names it.

        public_key, certificate: as the server shows them. now: Unix seconds; by default this moment.
        Raises InvalidKey and InvalidCertificate of `fma_core.errors`.
        """
        read = certificate_of(certificate)
        at = time.time() if now is None else now
        require_certificate(read, public_key_in(public_key), issuers=self.organisations, now=at)
        return self.organisations[read.issuer]


def read_trusted_issuers(path: str | os.PathLike[str]) -> TrustedIssuers:
    """Read the public file of an organisation, or all those (`*.pub`) of a folder.

    Raises InvalidArgument for a file that is none, for a key that two organisations have, and for an empty folder.
    """
    given = Path(path)
    organisations: dict[bytes, str] = {}
    for file in sorted(given.glob("*.pub")) if given.is_dir() else [given]:
        public_key, organisation = _public_file(file)
        if organisations.get(public_key, organisation) != organisation:
            raise InvalidArgument(
                f"{file}: the key {fingerprint(public_key)} is of another organisation, too"
            )
        organisations[public_key] = organisation
    if not organisations:
        raise InvalidArgument(f"{given} has no file *.pub of an organisation")
    return TrustedIssuers(organisations)


def _public_file(file: Path) -> tuple[bytes, str]:
    try:
        members = read_members(file)
        if members.keys() != {"format", "organisation", "public_key"} or members["format"] != FORMAT:
            raise ValueError("it has other members")
        organisation = members["organisation"]
        if not isinstance(organisation, str) or not organisation:
            raise ValueError("it names no organisation")
        return public_key_in(members["public_key"]), organisation
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}") from error
    except InvalidKey as error:
        raise InvalidArgument(f"{file}: {error.message}") from error
    except ValueError as error:
        raise InvalidArgument(f"{file} is no public file of an organisation") from error
