"""The newest weights of a model, for a client of it, in one read: clients ask for them again and again."""

from typing import Annotated, Any, NamedTuple

from django.db import connection
from django.utils import timezone

from fma_django.models import Client, FederatedModel, ModelAggregate, ModelArtifact
from fma_django.record.sql import Select, moment


class LatestWeights(NamedTuple):
    """The newest weights of a model. aggregate_id: None when they are those of its artifact."""

    sha256: str
    size_bytes: int
    aggregate_id: int | None


class LatestForClient(NamedTuple):
    """latest: the weights that `latest_model` finds. client_id: as the database has it."""

    client_id: Any
    latest: LatestWeights | None


class _Row(NamedTuple):
    client_id: Annotated[Any, "{c.id}"]
    aggregate_id: Annotated[int | None, "{a.id}"]
    sha256: Annotated[str, "{a.sha256}"]
    size_bytes: Annotated[int, "{a.size_bytes}"]
    artifact_sha256: Annotated[str | None, "{p.sha256}"]
    artifact_size_bytes: Annotated[int, "{p.size_bytes}"]


_LATEST = Select(
    _Row,
    """FROM {c}
    JOIN {reg} ON {reg.client_id} = {c.id} AND {reg.federatedmodel_id} = %(model)s
    JOIN {m} ON {m.id} = {reg.federatedmodel_id}
    LEFT JOIN {p} ON {p.id} = {m.current_artifact_id}
    LEFT JOIN {a} ON {a.id} = (
        SELECT {n.id} FROM {n} WHERE {n.federated_model_id} = {m.id} ORDER BY {n.id} DESC LIMIT 1
    )
    WHERE {c.is_active} AND {c.credential_hash} = %(credential_hash)s
    AND ({c.superseded_on} IS NULL OR {c.superseded_on} > %(now)s)""",
    c=Client,
    reg=FederatedModel.clients.through,
    m=FederatedModel,
    p=ModelArtifact,
    a=ModelAggregate,
    n=ModelAggregate,
)


def latest_for_client(federated_model_id: int, credential_hash: str) -> LatestForClient | None:
    """The newest weights; None when there is no such client, or it is not registered with the model."""
    with connection.cursor() as cursor:
        now = moment(cursor, timezone.now())
        row = _LATEST.one(
            cursor, {"model": federated_model_id, "credential_hash": credential_hash, "now": now}
        )
    if row is None:
        return None
    if row.aggregate_id is not None:
        return LatestForClient(row.client_id, LatestWeights(row.sha256, row.size_bytes, row.aggregate_id))
    if row.artifact_sha256 is not None:
        return LatestForClient(
            row.client_id, LatestWeights(row.artifact_sha256, row.artifact_size_bytes, None)
        )
    return LatestForClient(row.client_id, None)
