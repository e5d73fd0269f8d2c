"""What a client asks for again and again, the newest weights of a model, in one read.

SQL and not the ORM, for the reason that fma_django/services/update_rows.py has.
"""

from typing import NamedTuple

from django.db import connection

from fma_django.models import Client, ModelAggregate, ModelArtifact
from fma_django.selectors.aggregates import LatestModel


class LatestForClient(NamedTuple):
    """latest: as `latest_model` finds it, with no more of the row than its id, hash and size."""

    client: Client
    latest: LatestModel | None


_LATEST = """
SELECT c.id, a.id, a.sha256, a.size_bytes, p.id, p.sha256, p.size_bytes
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
    client_id, aggregate_id, sha256, size_bytes, artifact_id, artifact_sha256, artifact_size_bytes = row
    latest = None
    if aggregate_id is not None:
        latest = LatestModel(
            ModelAggregate(pk=aggregate_id, sha256=sha256, size_bytes=size_bytes), aggregate_id
        )
    elif artifact_id is not None:
        artifact = ModelArtifact(pk=artifact_id, sha256=artifact_sha256, size_bytes=artifact_size_bytes)
        latest = LatestModel(artifact, None)
    return LatestForClient(Client(pk=client_id), latest)
