"""Updates that come in parts: refused as early as they can be, and counted as their bytes arrive."""

from collections.abc import Callable
from typing import cast
from uuid import UUID

from fma_core.arrays.codecs.body_sizes import require_possible_size
from fma_core.arrays.codecs.zstd import CODING, is_zstd
from fma_core.errors import TooLarge
from fma_django import conf
from fma_django.errors import IdempotencyKeyExpired
from fma_django.models import Client, FederatedModel, IdempotencyKey, ModelUpdate, Upload
from fma_django.record.idempotency import Once, create_once
from fma_django.record.weights import SafetensorsBody
from fma_django.updates.facts import INITIAL
from fma_django.updates.intake import (
    Allow,
    Expected,
    Sender,
    SentSignature,
    UpdateFacts,
    accept,
    announce,
)
from fma_django.updates.limits import plain_bytes, require_size
from fma_django.updates.rates import ask_for_bytes, count_arrived, count_begun
from fma_django.updates.uploads import (
    append_part,
    complete_upload,
    create_upload,
    fingerprint_of,
    require_room_for_parts,
    require_room_for_whole,
    scope_of,
)


def begin_update(
    federated_model: FederatedModel,
    client: Client,
    size_bytes: int,
    facts: UpdateFacts,
    *,
    content_encoding: str = "",
    sha256: str = "",
    idempotency_key: str | None = None,
    signature: str = "",
) -> Upload:
    """Begin the upload of an update of `size_bytes`. What can be refused without them is refused now.

    signature: the text of its header, with which `sha256` must be there.

    Raises UnsupportedCoding, TooLarge, SpecMismatch, RateExceeded, StorageFull, and what `announce` and
    `create_upload` raise.
    """
    most = conf.current().max_update_bytes
    if size_bytes > most:
        raise TooLarge(f"an update may have at most {most} bytes (FMA_MAX_UPDATE_BYTES); found {size_bytes}")
    content_encoding = CODING if is_zstd(content_encoding) else ""
    announced = announce(
        Sender(federated_model.pk, client.pk),
        facts,
        size_bytes,
        content_encoding,
        signature=SentSignature(signature, sha256, facts.base_aggregate_id) if signature else None,
        allow=_allow_beginning,
    )
    base = announced.facts.base_aggregate_id
    upload = Upload(
        federated_model=federated_model,
        client=client,
        base_aggregate_id=base or None,
        base_is_known=base is not None,
        base_was_sent=facts.base_aggregate_id is not None,
        num_examples=facts.num_examples,
        metrics=facts.metrics,
        size_bytes=size_bytes,
        content_encoding=content_encoding,
        sha256=sha256,
        signature=signature,
    )
    return create_upload(
        upload,
        idempotency_key=idempotency_key,
        ask=lambda: count_begun(federated_model.pk, client.pk, size_bytes),
    )


def add_to_update(
    upload: Upload, read: Callable[[int], bytes], *, at: int, length: int, sha256: bytes | None = None
) -> int:
    """Append the next part. Raises RateExceeded, and what `announce` and `append_part` raise."""
    arrived = 0

    def allow_part(expected: Expected, size_bytes: int, coding: str) -> None:
        require_size(expected, size_bytes)
        ask_for_bytes(expected.federated_model_id, expected.client_id, length)

    def read_and_count(size: int) -> bytes:
        nonlocal arrived
        piece = read(size)
        arrived += len(piece)
        return piece

    try:
        return append_part(
            upload,
            read_and_count,
            at=at,
            length=length,
            sha256=sha256,
            ask=lambda: _announce(upload, allow=allow_part),
        )
    finally:
        if arrived:
            count_arrived(upload.federated_model_id, _client_id(upload), arrived)


def finish_update(upload: Upload, *, idempotency_key: str | None = None) -> ModelUpdate:
    """The update that a complete upload is; the same one however often it is asked for.

    idempotency_key: of whoever begins an upload again, because the first one seems lost, so that it is one update.
    Raises StorageFull, and what `announce`, `accept`, `create_once` and `complete_upload` raise.
    """
    first = upload if idempotency_key is None else _first_with(idempotency_key, upload)
    if first.update is not None:
        return first.update

    def make(body: SafetensorsBody) -> ModelUpdate:
        # An upload is its own key: whoever asks twice at once is answered with one update.
        expected = _announce(upload, allow=_allow_whole, idempotency_key=f"upload {first.pk}")
        update = accept(expected, body)
        Upload.objects.filter(pk=upload.pk).update(update=update)
        return update

    return complete_upload(upload, make, lambda upload: upload.update)


def _announce(upload: Upload, *, allow: Allow, idempotency_key: str | None = None) -> Expected:
    base = (upload.base_aggregate_id or INITIAL) if upload.base_is_known else None
    sent_base = base if upload.base_was_sent else None
    signature = SentSignature(upload.signature, upload.sha256, sent_base) if upload.signature else None
    return announce(
        Sender(upload.federated_model_id, _client_id(upload)),
        UpdateFacts(base, upload.num_examples, upload.metrics),
        upload.size_bytes,
        upload.content_encoding,
        idempotency_key=idempotency_key,
        signature=signature,
        allow=allow,
    )


# An update in parts is counted when it is begun, and its bytes as they arrive: each step asks for what it brings.


def _allow_beginning(expected: Expected, size_bytes: int, coding: str) -> None:
    require_size(expected, size_bytes)
    if expected.spec is not None and not coding:
        require_possible_size(size_bytes, expected.spec)
    require_room_for_parts(size_bytes, plain_bytes(expected, size_bytes, coding))


def _allow_whole(expected: Expected, size_bytes: int, coding: str) -> None:
    size_when_plain = plain_bytes(expected, size_bytes, coding)
    require_room_for_whole(size_when_plain)
    # The others were counted when they came.
    count_arrived(expected.federated_model_id, expected.client_id, size_when_plain - size_bytes)


def _first_with(key: str, upload: Upload) -> Upload:
    once = Once(f"{scope_of(upload)} finish", key, fingerprint_of(upload))
    try:
        return create_once(once, Upload, lambda: upload)
    except IdempotencyKeyExpired:
        # The first one was refused and given up, or has expired: this one takes its place.
        IdempotencyKey.objects.filter(scope=once.scope, key=once.key).update(object_id=str(upload.pk))
        return upload


def _client_id(upload: Upload) -> UUID:
    return cast("UUID", upload.client_id)  # developers send no updates
