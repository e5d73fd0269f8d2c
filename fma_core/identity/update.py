"""The signature of a client under an update: over everything that changes the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fma_core.identity.encoding import json_digest, statement, whole

LABEL = "fma 1 update"
NONCE_BYTES = 16


@dataclass(frozen=True)
class UpdateStatement:
    """An update as its client signs it.

    base_aggregate: as the client sends it; None when it leaves it out. sha256: of the body as it travels, before parts
    and after compression. nonce: 16 bytes that the client draws once for each update.
    """

    client: UUID
    model: int
    base_aggregate: int | None
    num_examples: int
    metrics: Mapping[str, Any]
    sha256: bytes
    nonce: bytes

    def encode(self) -> bytes:
        """The signed bytes."""
        return statement(
            LABEL,
            self.client.bytes,
            whole(self.model),
            whole(self.base_aggregate),
            whole(self.num_examples),
            json_digest(self.metrics),
            self.sha256,
            self.nonce,
        )
