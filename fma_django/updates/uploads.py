"""Bodies that come in parts: begun, added to, given up, and made an update when all of it is there.

The parts lie in the spool of the store: several machines that serve one model share a spool, or a balancer sends each
client to the same machine. A machine that has no parts of an upload says whether they are on another one.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import time

import structlog
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from fma_core.arrays.codecs.body_sizes import require_possible_size
from fma_core.arrays.codecs.zstd import CODING, is_zstd
from fma_core.errors import InvalidSpec, InvalidWeights, SpecMismatch, TooLarge, TruncatedBody
from fma_django import conf
from fma_django.errors import (
    ChecksumMismatch,
    DigestMismatch,
    IdempotencyKeyExpired,
    SchemaViolation,
    TooManyUploads,
    UnknownUpload,
    UploadBusy,
    UploadElsewhere,
    UploadIncomplete,
    WrongOffset,
)
from fma_django.models import Client, FederatedModel, IdempotencyKey, ModelUpdate, Upload
from fma_django.record.idempotency import Once, create_once
from fma_django.record.weights import SafetensorsBody
from fma_django.storage import get_store
from fma_django.storage.part_file import PartBusy, PartDamaged, PartFile, PartGone, PartMoved
from fma_django.storage.spool import UPLOADS, require_room, spool_id, uploads_dir
from fma_django.updates.facts import INITIAL
from fma_django.updates.intake import Allow, Expected, Sender, UpdateFacts, accept, announce
from fma_django.updates.limits import plain_bytes, require_size
from fma_django.updates.rates import ask_for_bytes, count_arrived, count_begun

log = structlog.get_logger(__name__)

SUFFIX = ".part"
# An upload to which nothing came for so long gives way to a new one of its client.
QUIET_S = 600.0
TRY_AGAIN_S = 60
BUSY_S = 2


def begin_upload(
    federated_model: FederatedModel,
    client: Client,
    size_bytes: int,
    facts: UpdateFacts,
    *,
    content_encoding: str = "",
    sha256: str = "",
    idempotency_key: str | None = None,
) -> Upload:
    """An upload of `size_bytes`, none of which is there yet. What can be refused without them is refused now.

    Raises UnsupportedCoding, TooLarge, SpecMismatch, RateExceeded, TooManyUploads, StorageFull, and what `announce`
    and `create_once` raise.
    """
    most = conf.current().max_update_bytes
    if size_bytes > most:
        raise TooLarge(f"an update may have at most {most} bytes (FMA_MAX_UPDATE_BYTES); found {size_bytes}")
    content_encoding = CODING if is_zstd(content_encoding) else ""
    announced = announce(
        Sender(federated_model.pk, client.pk), facts, size_bytes, content_encoding, allow=_allow_beginning
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
        spool=spool_id(_folder()),
        expires_on=timezone.now() + timedelta(seconds=conf.current().upload_s),
    )
    once = None
    if idempotency_key is not None:
        once = Once(f"client {client.pk} upload", idempotency_key, _fingerprint(upload))

    def create() -> Upload:
        # Whoever begins two at once counts them one after the other.
        Client.objects.select_for_update(no_key=True).get(pk=client.pk)
        _make_way(client, size_bytes)
        # Last of all that can refuse it, and not when a key that was used begins nothing.
        count_begun(federated_model.pk, client.pk, size_bytes)
        upload.save(force_insert=True)
        _part_of(upload).create()
        return upload

    return create_once(once, Upload, create)


def find_upload(client: Client | None, upload_id: str) -> Upload:
    """An upload of this client by its id. Raises UnknownUpload."""
    try:
        parsed = uuid.UUID(upload_id)
    except ValueError:
        parsed = None
    upload = None
    if client is not None and parsed is not None:
        upload = (
            uploads_of(client).select_related("federated_model", "client", "update").filter(pk=parsed).first()
        )
    if upload is None:
        raise UnknownUpload.of(upload_id)
    return upload


def offset_of(upload: Upload) -> int:
    """The number of bytes that have arrived. Raises UnknownUpload, UploadElsewhere."""
    if upload.update_id is not None:
        return upload.size_bytes
    try:
        return _part_of(upload).size_bytes()
    except PartGone as error:
        raise _gone(upload) from error


def add_to_upload(
    upload: Upload, read: Callable[[int], bytes], *, at: int, length: int, sha256: bytes | None = None
) -> int:
    """Take the next `length` bytes, or as many as come, and keep those; how many have arrived then.

    at: how many had before. sha256: of these bytes, when the sender says it. An update that is not wanted any more is
    refused before its bytes travel.
    Raises WrongOffset, TooLarge, RateExceeded, ChecksumMismatch, UnknownUpload, UploadElsewhere, StorageFull, and what
    `announce` raises; TruncatedBody when fewer came.
    """
    if at + length > upload.size_bytes:
        raise TooLarge(f"the upload has {upload.size_bytes} bytes; these would end at {at + length}")
    offset = offset_of(upload)
    if at != offset:
        raise _wrong_offset(at, offset)
    if upload.update_id is not None or not length:
        return offset

    def allow_part(expected: Expected, size_bytes: int, coding: str) -> None:
        require_size(expected, size_bytes)
        ask_for_bytes(expected.federated_model_id, expected.client_id, length)

    _announce(upload, allow=allow_part)
    arrived = 0

    def read_and_count(size: int) -> bytes:
        nonlocal arrived
        piece = read(size)
        arrived += len(piece)
        return piece

    try:
        end = _part_of(upload).append(read_and_count, at=at, length=length, sha256=sha256)
    except PartGone as error:
        raise _gone(upload) from error
    except PartMoved as error:
        raise _wrong_offset(at, error.size_bytes) from error
    except PartDamaged as error:
        raise ChecksumMismatch("Upload-Checksum speaks of other bytes than those that arrived") from error
    finally:
        count_arrived(upload.federated_model_id, upload.client_id, arrived)
    if end < at + length:
        raise TruncatedBody(f"the body ended after {end - at} of {length} bytes, which are kept")
    return end


def finish_upload(upload: Upload, *, idempotency_key: str | None = None) -> ModelUpdate:
    """The update that a complete upload is; the same one however often it is asked for.

    idempotency_key: of whoever begins an upload again, because the first one seems lost, so that it is one update.
    An upload whose bytes are refused is given up.
    Raises UploadIncomplete, UploadBusy, UnknownUpload, UploadElsewhere, StorageFull, and what `announce`, `accept` and
    `create_once` raise.
    """
    first = upload if idempotency_key is None else _first_with(idempotency_key, upload)
    if first.update is not None:
        return first.update
    try:
        offset = offset_of(upload)
    except (UnknownUpload, UploadElsewhere):
        return _finished_meanwhile(upload)
    if offset != upload.size_bytes:
        raise UploadIncomplete(
            f"{offset} of the {upload.size_bytes} bytes of this upload have arrived", offset=offset
        )
    part = _part_of(upload)
    try:
        with part.held() as fd:
            update = _receive(upload, fd, first)
            Upload.objects.filter(pk=upload.pk).update(update=update)
            part.remove()
    except PartGone:
        return _finished_meanwhile(upload)
    except PartBusy as error:
        raise UploadBusy(
            "another request is making this upload an update; ask again for that one",
            retry_after_s=BUSY_S,
        ) from error
    return update


def give_up_upload(upload: Upload) -> None:
    """Forget an upload and what has arrived of it."""
    Upload.objects.filter(pk=upload.pk).delete()
    _part_of(upload).remove()


def sweep_uploads() -> int:
    """Remove what has expired, what revoked clients left, and parts that no row speaks of; the number removed."""
    now = timezone.now()
    removed = 0
    for upload in Upload.objects.filter(Q(expires_on__lte=now) | Q(client__is_active=False)):
        give_up_upload(upload)
        removed += 1
    known = {f"{pk.hex}{SUFFIX}" for pk in Upload.objects.values_list("pk", flat=True)}
    young = time() - conf.current().orphan_grace_s
    for path in (get_store().spool_dir() / UPLOADS).glob(f"*{SUFFIX}"):
        part = PartFile(path)
        if path.name not in known and part.written_at() < young:
            part.remove()
            removed += 1
    return removed


def uploads_of(client: Client) -> QuerySet[Upload]:
    """The uploads that a client may go on with, or ask for."""
    return Upload.objects.filter(client=client, expires_on__gt=timezone.now())


def _announce(upload: Upload, *, allow: Allow, idempotency_key: str | None = None) -> Expected:
    base = (upload.base_aggregate_id or INITIAL) if upload.base_is_known else None
    return announce(
        Sender(upload.federated_model_id, upload.client_id),
        UpdateFacts(base, upload.num_examples, upload.metrics),
        upload.size_bytes,
        upload.content_encoding,
        idempotency_key=idempotency_key,
        allow=allow,
    )


# An update in parts is counted when it is begun, and its bytes as they arrive: each step asks for what it brings.


def _allow_beginning(expected: Expected, size_bytes: int, coding: str) -> None:
    _remove_dead_parts()
    require_size(expected, size_bytes)
    if expected.spec is not None and not coding:
        require_possible_size(size_bytes, expected.spec)
    # Once for the parts, and once for the file that is made of them.
    require_room(_folder(), size_bytes + plain_bytes(expected, size_bytes, coding))


def _allow_whole(expected: Expected, size_bytes: int, coding: str) -> None:
    size_when_plain = plain_bytes(expected, size_bytes, coding)
    require_room(_folder(), size_when_plain)
    # The others were counted when they came.
    count_arrived(expected.federated_model_id, expected.client_id, size_when_plain - size_bytes)


def _remove_dead_parts() -> None:
    # Files of expired uploads are removed in any case. The sweep looks at the spool of the worker's machine alone.
    youngest = time() - conf.current().upload_s
    for path in _folder().glob(f"*{SUFFIX}"):
        if PartFile(path).written_at() < youngest:
            PartFile(path).remove()


def _make_way(client: Client, size_bytes: int) -> None:
    unfinished = list(uploads_of(client).filter(update__isnull=True).order_by("created_on"))
    most, most_bytes = conf.current().max_uploads, conf.current().max_uploading_bytes
    quiet_since = time() - QUIET_S

    def is_too_much() -> bool:
        announced = size_bytes + sum(upload.size_bytes for upload in unfinished)
        return bool(len(unfinished) >= most or announced > most_bytes)

    given_up = []
    for upload in list(unfinished):
        # That of another machine is as quiet as it is old.
        written_at = _part_of(upload).written_at() or upload.created_on.timestamp()
        if is_too_much() and written_at < quiet_since:
            unfinished.remove(upload)
            given_up.append(upload)
    if is_too_much():
        raise TooManyUploads(
            f"this client has begun {len(unfinished)} uploads, which is all that it may at one time "
            f"({most}, of {most_bytes} bytes together): finish one, or DELETE it",
            retry_after_s=TRY_AGAIN_S,
        )
    for upload in given_up:
        Upload.objects.filter(pk=upload.pk).delete()
        # The new one may still be refused; then nothing has happened to these.
        transaction.on_commit(_part_of(upload).remove)


def _receive(upload: Upload, fd: int, first: Upload) -> ModelUpdate:
    # An upload is its own key: whoever asks twice at once is answered with one update.
    expected = _announce(upload, allow=_allow_whole, idempotency_key=f"upload {first.pk}")
    body = SafetensorsBody(
        read=lambda size: os.read(fd, size),
        size_bytes=upload.size_bytes,
        wire_sha256=upload.sha256 or None,
        content_encoding=upload.content_encoding,
        digest_header="Repr-Digest",
        file=_part_of(upload).path,
    )
    try:
        return accept(expected, body)
    except (DigestMismatch, InvalidSpec, InvalidWeights, SchemaViolation, SpecMismatch):
        # Its bytes will not become better, and looking at gigabytes of them again and again is work.
        give_up_upload(upload)
        raise


def _first_with(key: str, upload: Upload) -> Upload:
    once = Once(f"client {upload.client_id} finish", key, _fingerprint(upload))
    try:
        return create_once(once, Upload, lambda: upload)
    except IdempotencyKeyExpired:
        # The first one was refused and given up, or has expired: this one takes its place.
        IdempotencyKey.objects.filter(scope=once.scope, key=once.key).update(object_id=str(upload.pk))
        return upload


def _finished_meanwhile(upload: Upload) -> ModelUpdate:
    current = Upload.objects.select_related("update").filter(pk=upload.pk).first()
    if current is None or current.update is None:
        raise _gone(upload)
    return current.update


def _fingerprint(upload: Upload) -> str:
    content = [
        upload.federated_model_id,
        # As it was sent: a base that follows from the rounds that the client has joined is another one later.
        upload.base_aggregate_id if upload.base_was_sent else None,
        upload.num_examples,
        upload.metrics,
        upload.size_bytes,
        upload.content_encoding,
        upload.sha256,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _folder() -> Path:
    return uploads_dir(get_store().spool_dir())


def _part_of(upload: Upload) -> PartFile:
    return PartFile(_folder() / f"{upload.pk.hex}{SUFFIX}")


def _gone(upload: Upload) -> UnknownUpload | UploadElsewhere:
    here = spool_id(_folder())
    if upload.spool in (None, here) or not Upload.objects.filter(pk=upload.pk).exists():
        return UnknownUpload(f"there is no upload {upload.pk} any more")
    log.warning("upload_elsewhere", upload=str(upload.pk), spool=str(upload.spool), here=str(here))
    return UploadElsewhere(
        f"the parts of upload {upload.pk} are in the spool of another machine; machines that serve uploads share one "
        "spool (FMA_SPOOL_DIR), or a balancer sends each client to the same machine"
    )


def _wrong_offset(announced: int, arrived: int) -> WrongOffset:
    return WrongOffset(
        f"{arrived} bytes of the upload have arrived; Upload-Offset says {announced}", offset=arrived
    )
