"""Bodies that come in parts: begun, added to, given up, and made something else when all of it is there.

An update in parts (`fma_django.updates.in_parts`) and an initial model in parts
(`fma_django.experiments.initial_model_in_parts`) differ in what is asked before bytes travel, and in what is made.

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
from typing import TypeVar

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from fma_core.errors import InvalidSpec, InvalidWeights, SpecMismatch, TooLarge, TruncatedBody
from fma_django import conf
from fma_django.errors import (
    ChecksumMismatch,
    DigestMismatch,
    SchemaViolation,
    TooManyUploads,
    UnknownUpload,
    UploadBusy,
    UploadElsewhere,
    UploadIncomplete,
    WrongOffset,
)
from fma_django.models import Client, Upload
from fma_django.record.idempotency import Once, create_once
from fma_django.record.weights import SafetensorsBody
from fma_django.storage import get_store
from fma_django.storage.part_file import PartBusy, PartDamaged, PartFile, PartGone, PartMoved
from fma_django.storage.spool import UPLOADS, require_room, spool_id, uploads_dir

log = structlog.get_logger(__name__)

SUFFIX = ".part"
# An upload to which nothing came for so long gives way to a new one of its caller.
QUIET_S = 600.0
TRY_AGAIN_S = 60
BUSY_S = 2

Caller = Client | User
Made = TypeVar("Made")


def create_upload(upload: Upload, *, idempotency_key: str | None, ask: Callable[[], object]) -> Upload:
    """Create an upload none of which is there yet, or return the one that the same key created.

    ask: the limits of its kind, last of all that can refuse it; a key that was used asks nothing.
    Raises TooManyUploads, and what `ask` and `create_once` raise.
    """
    upload.spool = spool_id(_folder())
    upload.expires_on = timezone.now() + timedelta(seconds=conf.current().upload_s)
    once = None
    if idempotency_key is not None:
        once = Once(f"{scope_of(upload)} upload", idempotency_key, fingerprint_of(upload))

    def create() -> Upload:
        # Whoever begins two at once counts them one after the other.
        sender = upload.sender
        if isinstance(sender, Client):
            Client.objects.select_for_update(no_key=True).get(pk=sender.pk)
        else:
            User.objects.select_for_update(no_key=True).get(pk=sender.pk)
        _make_way(sender, upload.size_bytes)
        ask()
        upload.save(force_insert=True)
        _part_of(upload).create()
        return upload

    return create_once(once, Upload, create)


def require_room_for_parts(size_bytes: int, whole_bytes: int) -> None:
    """Raise StorageFull without room for `size_bytes` in parts and the file of `whole_bytes` that is made of them."""
    _remove_dead_parts()
    require_room(_folder(), size_bytes + whole_bytes)


def require_room_for_whole(whole_bytes: int) -> None:
    """Raises StorageFull."""
    require_room(_folder(), whole_bytes)


def find_upload(caller: Caller | None, upload_id: str) -> Upload:
    """An upload of this caller by its id. Raises UnknownUpload."""
    try:
        parsed = uuid.UUID(upload_id)
    except ValueError:
        parsed = None
    upload = None
    if caller is not None and parsed is not None:
        upload = uploads_of(caller).select_related("update", "artifact").filter(pk=parsed).first()
    if upload is None:
        raise UnknownUpload.of(upload_id)
    return upload


def offset_of(upload: Upload) -> int:
    """The number of bytes that have arrived. Raises UnknownUpload, UploadElsewhere."""
    if upload.is_finished:
        return upload.size_bytes
    try:
        return _part_of(upload).size_bytes()
    except PartGone as error:
        raise _gone(upload) from error


def append_part(
    upload: Upload,
    read: Callable[[int], bytes],
    *,
    at: int,
    length: int,
    sha256: bytes | None,
    ask: Callable[[], object],
) -> int:
    """Take the next `length` bytes, or as many as come, and keep those; how many have arrived then.

    at: how many had before. sha256: of these bytes, when the sender says it. ask: whether the whole is still wanted,
    before its bytes travel.
    Raises WrongOffset, TooLarge, ChecksumMismatch, UnknownUpload, UploadElsewhere, StorageFull, and what `ask` raises;
    TruncatedBody when fewer came.
    """
    if at + length > upload.size_bytes:
        raise TooLarge(f"the upload has {upload.size_bytes} bytes; these would end at {at + length}")
    offset = offset_of(upload)
    if at != offset:
        raise _wrong_offset(at, offset)
    if upload.is_finished or not length:
        return offset
    ask()
    try:
        end = _part_of(upload).append(read, at=at, length=length, sha256=sha256)
    except PartGone as error:
        raise _gone(upload) from error
    except PartMoved as error:
        raise _wrong_offset(at, error.size_bytes) from error
    except PartDamaged as error:
        raise ChecksumMismatch("Upload-Checksum speaks of other bytes than those that arrived") from error
    if end < at + length:
        raise TruncatedBody(f"the body ended after {end - at} of {length} bytes, which are kept")
    return end


def complete_upload(
    upload: Upload, make: Callable[[SafetensorsBody], Made], made_of: Callable[[Upload], Made | None]
) -> Made:
    """Make something of a complete upload; return what was made of it before, however often it is asked for.

    make: makes it of the body, and writes it down at the upload. made_of: what an upload that is read again became.
    An upload whose bytes are refused is given up.
    Raises UploadIncomplete, UploadBusy, UnknownUpload, UploadElsewhere, and what `make` raises.
    """

    def made_meanwhile() -> Made:
        current = Upload.objects.select_related("update", "artifact").filter(pk=upload.pk).first()
        made = None if current is None else made_of(current)
        if made is None:
            raise _gone(upload)
        return made

    try:
        offset = offset_of(upload)
    except (UnknownUpload, UploadElsewhere):
        return made_meanwhile()
    if offset != upload.size_bytes:
        raise UploadIncomplete(
            f"{offset} of the {upload.size_bytes} bytes of this upload have arrived", offset=offset
        )
    part = _part_of(upload)
    what = "an update" if upload.client_id is not None else "an initial model"
    try:
        with part.held() as fd:
            try:
                made = make(_body_of(upload, fd, part))
            except (DigestMismatch, InvalidSpec, InvalidWeights, SchemaViolation, SpecMismatch):
                # Its bytes will not become better, and looking at gigabytes of them again and again is work.
                give_up_upload(upload)
                raise
            part.remove()
    except PartGone:
        return made_meanwhile()
    except PartBusy as error:
        raise UploadBusy(
            f"another request is making this upload {what}; ask again for that one",
            retry_after_s=BUSY_S,
        ) from error
    return made


def give_up_upload(upload: Upload) -> None:
    """Forget an upload and what has arrived of it."""
    Upload.objects.filter(pk=upload.pk).delete()
    _part_of(upload).remove()


def sweep_uploads() -> int:
    """Remove what has expired, what callers left that are not active any more, and parts that no row speaks of.

    Return the number removed.
    """
    now = timezone.now()
    removed = 0
    left = Q(client__is_active=False) | Q(developer__is_active=False)
    for upload in Upload.objects.filter(Q(expires_on__lte=now) | left):
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


def uploads_of(caller: Caller) -> QuerySet[Upload]:
    """The uploads that a client or a developer may go on with, or ask for, with their models and senders."""
    role = "client" if isinstance(caller, Client) else "developer"
    rows = Upload.objects.filter(**{role: caller}, expires_on__gt=timezone.now())
    return rows.select_related("federated_model", role)


def scope_of(upload: Upload) -> str:
    """The sender of an upload in the scope of an Idempotency-Key."""
    if upload.client_id is not None:
        return f"client {upload.client_id}"
    return f"user {upload.developer_id}"


def fingerprint_of(upload: Upload) -> str:
    """The SHA-256 (hex) of what was announced."""
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


def _remove_dead_parts() -> None:
    # Files of expired uploads are removed in any case. The sweep looks at the spool of the worker's machine alone.
    youngest = time() - conf.current().upload_s
    for path in _folder().glob(f"*{SUFFIX}"):
        if PartFile(path).written_at() < youngest:
            PartFile(path).remove()


def _make_way(caller: Caller, size_bytes: int) -> None:
    unfinished = list(
        uploads_of(caller).filter(update__isnull=True, artifact__isnull=True).order_by("created_on")
    )
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
        who = "client" if isinstance(caller, Client) else "developer"
        raise TooManyUploads(
            f"this {who} has begun {len(unfinished)} uploads, which is all that it may at one time "
            f"({most}, of {most_bytes} bytes together): finish one, or DELETE it",
            retry_after_s=TRY_AGAIN_S,
        )
    for upload in given_up:
        Upload.objects.filter(pk=upload.pk).delete()
        # The new one may still be refused; then nothing has happened to these.
        transaction.on_commit(_part_of(upload).remove)


def _body_of(upload: Upload, fd: int, part: PartFile) -> SafetensorsBody:
    return SafetensorsBody(
        read=lambda size: os.read(fd, size),
        size_bytes=upload.size_bytes,
        wire_sha256=upload.sha256 or None,
        content_encoding=upload.content_encoding,
        digest_header="Repr-Digest",
        file=part.path,
    )


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
