"""What a client asks for again and again, the newest weights of a model, in one read.

SQL and not the ORM, for the reason that fma_django/updates/sql.py has.
"""

from typing import Any, NamedTuple

from django.db import connection


class LatestWeights(NamedTuple):
    """The newest weights of a model. aggregate_id: None when they are those of its artifact."""

    sha256: str
    size_bytes: int
    aggregate_id: int | None


class LatestForClient(NamedTuple):
    """latest: of what `latest_model` finds. client_id: as the database has it."""

    client_id: Any
    latest: LatestWeights | None


_LATEST = """
SELECT c.id, a.id, a.sha256, a.size_bytes, p.sha256, p.size_bytes
FROM fma_django_client c
JOIN fma_django_federatedmodel_clients reg ON reg.client_id = c.id AND reg.federatedmodel_id = %s
JOIN fma_django_federatedmodel m ON m.id = reg.federatedmodel_id
LEFT JOIN fma_django_modelartifact p ON p.id = m.current_artifact_id
LEFT JOIN fma_django_modelaggregate a ON a.id = (
    SELECT n.id FROM fma_django_modelaggregate n WHERE n.federated_model_id = m.id ORDER BY n.id DESC LIMIT 1
)
WHERE c.is_active AND c.credential_hash = %s
"""


def latest_for_client(federated_model_id: int, credential_hash: str) -> LatestForClient | None:
    """None when there is no such client, or it is not registered with the model."""
    with connection.cursor() as cursor:
        cursor.execute(_LATEST, [federated_model_id, credential_hash])
        row = cursor.fetchone()
    if row is None:
        return None
    client_id, aggregate_id, sha256, size_bytes, artifact_sha256, artifact_size_bytes = row
    if aggregate_id is not None:
        return LatestForClient(client_id, LatestWeights(sha256, size_bytes, aggregate_id))
    if artifact_sha256 is not None:
        return LatestForClient(client_id, LatestWeights(artifact_sha256, artifact_size_bytes, None))
    return LatestForClient(client_id, None)
