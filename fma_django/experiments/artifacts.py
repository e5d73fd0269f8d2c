"""Publishing weights under a version."""

import hashlib

from django.db import IntegrityError, transaction

from fma_django.errors import VersionTaken
from fma_django.models import FederatedModel, ModelAggregate, ModelArtifact
from fma_django.record.idempotency import Once, create_once


def publish_aggregate(
    aggregate: ModelAggregate, version: str, *, once_key: tuple[str, str] | None = None
) -> ModelArtifact:
    """Publish an aggregate; the artifact becomes the model's current one. Raises VersionTaken."""
    once = None
    if once_key is not None:
        fingerprint = hashlib.sha256(f"{aggregate.pk} {version}".encode()).hexdigest()
        once = Once(*once_key, fingerprint=fingerprint)
    return create_once(
        once,
        ModelArtifact,
        lambda: create_artifact(
            aggregate.federated_model,
            version=version,
            sha256=aggregate.sha256,
            size_bytes=aggregate.size_bytes,
            aggregate=aggregate,
        ),
    )


def create_artifact(
    federated_model: FederatedModel,
    *,
    version: str,
    sha256: str,
    size_bytes: int,
    aggregate: ModelAggregate | None = None,
) -> ModelArtifact:
    """The row of an artifact, made current. To be called in a transaction."""
    if federated_model.artifacts.filter(version=version).exists():
        raise _version_taken(federated_model, version)
    try:
        with transaction.atomic():
            artifact = ModelArtifact.objects.create(
                federated_model=federated_model,
                aggregate=aggregate,
                version=version,
                sha256=sha256,
                size_bytes=size_bytes,
            )
    except IntegrityError as error:  # somebody published it between the look and the insert
        raise _version_taken(federated_model, version) from error
    federated_model.current_artifact = artifact
    federated_model.save(update_fields=["current_artifact", "last_modified"])
    return artifact


def _version_taken(federated_model: FederatedModel, version: str) -> VersionTaken:
    return VersionTaken(f"model {federated_model.pk} has a version {version} already; versions never change")
