"""Initial models that come in parts: the upload of a developer becomes artifact 1.0.0."""

from collections.abc import Callable

from django.contrib.auth.models import User

from fma_core.arrays.codecs.body_sizes import require_possible_size
from fma_core.arrays.codecs.zstd import CODING, is_zstd
from fma_core.errors import TooLarge
from fma_django import conf
from fma_django.experiments.changes import require_no_weights, set_initial_model
from fma_django.models import FederatedModel, ModelArtifact, Upload
from fma_django.record.weights import SafetensorsBody
from fma_django.updates.uploads import (
    append_part,
    complete_upload,
    create_upload,
    require_room_for_parts,
    scope_of,
)


def begin_initial_model(
    federated_model: FederatedModel,
    developer: User,
    size_bytes: int,
    *,
    content_encoding: str = "",
    sha256: str = "",
    idempotency_key: str | None = None,
) -> Upload:
    """Begin the upload of an initial model of `size_bytes`. What can be refused without them is refused now.

    Raises UnsupportedCoding, TooLarge, SpecMismatch, StorageFull, ModelHasHistory, and what `create_upload` raises.
    """
    most = conf.current().max_update_bytes
    if size_bytes > most:
        raise TooLarge(
            f"an initial model may have at most {most} bytes (FMA_MAX_UPDATE_BYTES); found {size_bytes}"
        )
    content_encoding = CODING if is_zstd(content_encoding) else ""
    spec = federated_model.array_spec
    if spec is not None and not content_encoding:
        require_possible_size(size_bytes, spec)
    require_room_for_parts(size_bytes, size_bytes)
    upload = Upload(
        federated_model=federated_model,
        developer=developer,
        size_bytes=size_bytes,
        content_encoding=content_encoding,
        sha256=sha256,
    )
    # A key that was used before may have made the weights that the model has.
    return create_upload(
        upload, idempotency_key=idempotency_key, ask=lambda: require_no_weights(federated_model)
    )


def add_to_initial_model(
    upload: Upload, read: Callable[[int], bytes], *, at: int, length: int, sha256: bytes | None = None
) -> int:
    """Append the next part. Raises ModelHasHistory, and what `append_part` raises."""
    return append_part(
        upload,
        read,
        at=at,
        length=length,
        sha256=sha256,
        ask=lambda: require_no_weights(upload.federated_model),
    )


def finish_initial_model(upload: Upload, *, idempotency_key: str | None = None) -> ModelArtifact:
    """The artifact that a complete upload is; the same one however often it is asked for.

    idempotency_key: of whoever begins an upload again, because the first one seems lost.
    Raises what `set_initial_model` and `complete_upload` raise.
    """
    if upload.artifact is not None:
        return upload.artifact

    def make(body: SafetensorsBody) -> ModelArtifact:
        artifact = set_initial_model(upload.federated_model, body, once_key=once_key)
        Upload.objects.filter(pk=upload.pk).update(artifact=artifact)
        return artifact

    # An upload is its own key: a request that died after it made the artifact has not written it down.
    key = f"upload {upload.pk}" if idempotency_key is None else idempotency_key
    once_key = (f"{scope_of(upload)} initial model {upload.federated_model_id}", key)
    return complete_upload(upload, make, lambda upload: upload.artifact)
