"""An update before its body: the client that sends it, and the body that is expected."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fma_core.arrays.codecs.json_layouts import Layout
from fma_core.arrays.spec import Spec
from fma_django.models import UpdateSignature
from fma_django.record.idempotency import Once
from fma_django.updates.facts import UpdateFacts


@dataclass(slots=True)
class Sender:
    """The client that sends an update, and the model that it is for.

    client_id: None for a client that is named by its credential, until `announce` looks it up.
    credential_hash: as `clients.registration.hash_of` gives it.
    """

    federated_model_id: int
    client_id: UUID | None = None
    credential_hash: str | None = None


@dataclass(frozen=True)
class Expected:
    """An update whose body may travel: its client and model, its facts, and the requirements on its body.

    sent_base: the base_aggregate that the client named; that of the facts may follow from a round that it joined.
    signed: the client's signature, which is right, to be kept with the update.
    """

    client_id: UUID
    federated_model_id: int
    facts: UpdateFacts
    sent_base: int | None
    metrics_json: str
    idempotency_key: str | None
    configuration: str
    spec_json: str | None
    spec: Spec | None
    layout: Layout | None
    schema: Any
    signed: UpdateSignature | None

    @property
    def scope(self) -> str:
        """The scope of its Idempotency-Key."""
        return f"client {self.client_id} update"

    def once(self, sha256: str) -> Once | None:
        """The Idempotency-Key of the update, for a body that is stored under `sha256`."""
        if self.idempotency_key is None:
            return None
        facts = self.facts
        content = [
            self.federated_model_id,
            sha256,
            self.sent_base,
            facts.num_examples,
            facts.metrics,
        ]
        fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return Once(self.scope, self.idempotency_key, fingerprint)
