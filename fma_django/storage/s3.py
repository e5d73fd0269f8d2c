"""Blobs as objects of an S3-compatible store, through boto3.

Credentials and region are found as boto3 finds them (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, a profile, a role …).
An object's ETag is never read: what is fetched is hashed. Checksums that only Amazon's own S3 understands stay off.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fma_django.storage.blob_store import Progress, StoredBlob, blob_key, check_sha256, fragment_key
from fma_django.storage.errors import BlobMissing, InvalidBlobName, StorageUnavailable
from fma_django.storage.pieces import Pieces
from fma_django.storage.spool import default_spool, ensure_spool, remove_stale
from fma_django.storage.verified_copy import write_verified

PART_BYTES = 16 << 20
"""Files above this go up in parts of this size, each retried on its own: 10 000 parts, S3's limit, make 160 GiB."""

_PATIENT = {"connect_timeout": 5, "read_timeout": 60, "retries": {"mode": "standard", "max_attempts": 4}}
# Whoever asks whether the store is there (a health check) wants an answer now, not after every retry.
_IMPATIENT = {"connect_timeout": 2, "read_timeout": 3, "retries": {"mode": "standard", "max_attempts": 1}}

_MISSING_OBJECT = frozenset({"404", "NoSuchKey", "NotFound"})
_RESUMES = 3


class S3Store:
    """A BlobStore below `prefix` of an existing bucket."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        endpoint_url: str | None = None,
        spool_dir: Path | None = None,
        *,
        part_bytes: int = PART_BYTES,
    ) -> None:
        try:
            import boto3  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "an s3:// store needs boto3: pip install 'federated-model-aggregation[s3]'"
            ) from error
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.endpoint_url = endpoint_url
        self._spool_dir = spool_dir
        self._part_bytes = part_bytes
        self._session: Any = None
        self._clients: dict[tuple[int, bool], Any] = {}
        self._clients_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"S3Store({self.bucket!r}, {self.prefix!r}, endpoint_url={self.endpoint_url!r})"

    def put_file(self, path: Path, sha256: str) -> None:
        """Upload the file, in parts when it is large, and remove it here. An object is only ever seen whole."""
        key = self._key(sha256)
        # Sent even when the object is there already: only so is its age reset, and a damaged copy mended.
        with self._translated(f"store {sha256}"):
            if path.stat().st_size > self._part_bytes:
                self._put_in_parts(path, key)
            else:
                with open(path, "rb") as file:
                    self._client().put_object(Bucket=self.bucket, Key=key, Body=file)
            path.unlink()

    def put_bytes(self, data: bytes, sha256: str) -> None:
        """Upload them in one request."""
        key = self._key(sha256)
        with self._translated(f"store {sha256}"):
            self._client().put_object(Bucket=self.bucket, Key=key, Body=data)

    def open_range(self, sha256: str, start: int = 0, length: int | None = None) -> Pieces:
        """One ranged GET, taken up again where it stopped when the connection breaks."""
        left = max(self._size_bytes(sha256) - start, 0)
        return self._pieces(sha256, start, left if length is None else min(length, left))

    def local_path(self, sha256: str) -> Path | None:
        """None: objects are not local."""
        check_sha256(sha256)
        return None

    def presigned_url(self, sha256: str, *, seconds: int) -> str | None:
        """Signed here, without asking the server."""
        wanted = {"Bucket": self.bucket, "Key": self._key(sha256)}
        with self._translated(f"sign an address of {sha256}"):
            url: str = self._client().generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds)
        return url

    def fetch(self, sha256: str, to: Path, progress: Progress | None = None) -> None:
        """Download, hashing on the way. One connection: fetch several blobs from several threads for more speed."""
        size = self._size_bytes(sha256)
        with closing(self._pieces(sha256, 0, size)) as pieces, self._translated(f"copy {sha256} to {to}"):
            write_verified(pieces, to, sha256=sha256, size_bytes=size, progress=progress)

    def size_bytes(self, sha256: str) -> int | None:
        """Send a HEAD request."""
        head = self._head(sha256)
        return None if head is None else int(head["ContentLength"])

    def delete(self, sha256: str, *, older_than: datetime | None = None) -> bool:
        """Delete the object. S3 cannot compare and delete in one step: between the look at the age and the delete lie
        milliseconds, in which a put of the very blob that is being swept would be lost."""
        key = self._key(sha256)
        if older_than is not None:
            head = self._head(sha256)
            if head is not None and head["LastModified"] >= older_than:
                return False
        with self._translated(f"delete {sha256}"):
            self._client().delete_object(Bucket=self.bucket, Key=key)
        return True

    def blobs(self) -> Iterator[StoredBlob]:
        """List the objects, a thousand a request."""
        with self._translated("list the blobs"):
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._below_prefix("blobs/")):
                for listed in page.get("Contents", ()):
                    name = listed["Key"].rpartition("/")[2]
                    try:
                        ours = listed["Key"] == self._key(name)
                    except InvalidBlobName:
                        continue
                    if ours:
                        yield StoredBlob(name, int(listed["Size"]), listed["LastModified"].astimezone(UTC))

    def ping(self) -> None:
        """Write an object of one byte, always the same one."""
        with self._translated("be written"):
            self._client(patient=False).put_object(
                Bucket=self.bucket, Key=self._below_prefix("ping"), Body=b"!"
            )

    def read_owner(self) -> bytes | None:
        """The object `owner`."""
        key = self._below_prefix("owner")
        try:
            with self._translated("say its owner", "owner"):
                data: bytes = self._client().get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except BlobMissing:
            return None
        return data

    def write_owner(self, data: bytes) -> None:
        """One request."""
        with self._translated("take its owner"):
            self._client().put_object(Bucket=self.bucket, Key=self._below_prefix("owner"), Body=data)

    def spool_dir(self) -> Path:
        """FMA_SPOOL_DIR, or a folder in the system's temporary folder."""
        return default_spool() if self._spool_dir is None else ensure_spool(self._spool_dir)

    def remote(self) -> S3Store:
        """The store itself is also a RemoteBlobs."""
        return self

    def read_range(self, sha256: str, start: int, stop: int) -> bytes:
        """One ranged GET and, other than `open_range`, no question for the size before it."""
        with closing(self._pieces(sha256, start, stop - start)) as pieces:
            return b"".join(pieces)

    def put_fragment(self, name: str, data: bytes) -> None:
        """An object below `fragments/`."""
        key = self._below_prefix(fragment_key(name))
        with self._translated(f"store the fragment {name}"):
            self._client().put_object(Bucket=self.bucket, Key=key, Body=data)

    def read_fragment(self, name: str) -> bytes:
        """One GET."""
        key = self._below_prefix(fragment_key(name))
        with self._translated(f"read the fragment {name}", name):
            data: bytes = self._client().get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return data

    def remove_fragments(self, folder: str) -> None:
        """List and delete."""
        with self._translated("remove fragments"):
            self._remove_objects(self._below_prefix(fragment_key(f"{folder}/")), older_than=None)

    def remove_unfinished(self, older_than: datetime) -> int:
        """Clean the spool, and abort uploads in parts that nobody finished: they cost money and are in no listing."""
        removed = remove_stale(self.spool_dir(), older_than)
        with self._translated("remove forgotten fragments"):
            removed += self._remove_objects(self._below_prefix("fragments/"), older_than=older_than)
        with self._translated("end its unfinished uploads"):
            for upload in self._unfinished_uploads():
                if upload["Initiated"] < older_than:
                    self._client().abort_multipart_upload(
                        Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    removed += 1
        return removed

    def _remove_objects(self, prefix: str, *, older_than: datetime | None) -> int:
        removed = 0
        for page in (
            self._client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        ):
            for listed in page.get("Contents", ()):
                if older_than is None or listed["LastModified"] < older_than:
                    self._client().delete_object(Bucket=self.bucket, Key=listed["Key"])
                    removed += 1
        return removed

    def _unfinished_uploads(self) -> list[Mapping[str, Any]]:
        pages = self._client().get_paginator("list_multipart_uploads")
        uploads: list[Mapping[str, Any]] = []
        try:
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._below_prefix("blobs/")):
                uploads += page.get("Uploads", ())
        except self._client().exceptions.NoSuchUpload:
            pass  # rclone's way to say that there are none
        return uploads

    def _below_prefix(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _key(self, sha256: str) -> str:
        return self._below_prefix(blob_key(sha256))

    def _head(self, sha256: str) -> Mapping[str, Any] | None:
        key = self._key(sha256)
        try:
            with self._translated(f"look for {sha256}", sha256):
                head: Mapping[str, Any] = self._client().head_object(Bucket=self.bucket, Key=key)
        except BlobMissing:
            return None
        return head

    def _size_bytes(self, sha256: str) -> int:
        size = self.size_bytes(sha256)
        if size is None:
            # A HEAD has no body to say what is missing. A bucket that is gone must not pass for a lost blob.
            with self._translated(f"look for {sha256}"):
                self._client().head_bucket(Bucket=self.bucket)
            raise self._missing(sha256)
        return size

    def _pieces(self, sha256: str, start: int, length: int) -> Pieces:
        source = _Resuming(self, sha256, start, start + length)
        return Pieces(source.read, length, close=source.close)

    def _put_in_parts(self, path: Path, key: str) -> None:
        from boto3.s3.transfer import TransferConfig

        in_parts = TransferConfig(
            multipart_threshold=self._part_bytes, multipart_chunksize=self._part_bytes, max_concurrency=4
        )
        self._client().upload_file(str(path), self.bucket, key, Config=in_parts)

    def _open_body(self, sha256: str, start: int, stop: int) -> Any:
        key, wanted = self._key(sha256), f"bytes={start}-{stop - 1}"
        with self._translated(f"read {sha256}", sha256):
            return self._client().get_object(Bucket=self.bucket, Key=key, Range=wanted)["Body"]

    def _missing(self, sha256: str) -> BlobMissing:
        return BlobMissing(f"blob {sha256} is not in the store", sha256=sha256, store=self._name)

    @property
    def _name(self) -> str:
        where = f" at {self.endpoint_url}" if self.endpoint_url else ""
        return f"s3://{self.bucket}/{self.prefix}{where}"

    def _client(self, *, patient: bool = True) -> Any:
        # boto3's clients may be shared between threads, but not made in several at once, and their open connections
        # must not be shared with a forked process: hence the lock and the process id.
        key = (os.getpid(), patient)
        with self._clients_lock:
            if key not in self._clients:
                self._clients[key] = self._new_client(_PATIENT if patient else _IMPATIENT)
            return self._clients[key]

    def _new_client(self, timing: Mapping[str, Any]) -> Any:
        import boto3
        from botocore.config import Config

        try:
            # One session for all clients: the first client of a session costs ten times what the next ones do.
            self._session = self._session or boto3.session.Session()
            return self._session.client(
                "s3",
                endpoint_url=self.endpoint_url,
                region_name=self._session.region_name or "us-east-1",
                config=Config(
                    signature_version="s3v4",  # else addresses are still signed the old way
                    max_pool_connections=64,
                    # Servers other than Amazon's seldom resolve bucket.host names.
                    s3={"addressing_style": "path" if self.endpoint_url else "auto"},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    **timing,
                ),
            )
        except ValueError as error:  # boto3's word for an endpoint that is no URL
            raise self._unavailable("be used", error) from error

    @contextmanager
    def _translated(self, action: str, sha256: str | None = None) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            if sha256 is not None and error.response.get("Error", {}).get("Code") in _MISSING_OBJECT:
                raise self._missing(sha256) from error
            raise self._unavailable(action, error) from error
        except (BotoCoreError, Boto3Error, OSError) as error:
            raise self._unavailable(action, error) from error

    def _unavailable(self, action: str, error: Exception) -> StorageUnavailable:
        return StorageUnavailable(f"the store {self._name} cannot {action}: {error}", store=self._name)


class _Resuming:
    """The bytes [start, stop) of an object, by as many GETs as it takes."""

    def __init__(self, store: S3Store, sha256: str, start: int, stop: int) -> None:
        self._store, self._sha256 = store, sha256
        self._at, self._stop = start, stop
        self._body: Any = None
        self._resumes_left = _RESUMES

    def read(self, size: int) -> bytes:
        from botocore.exceptions import BotoCoreError

        while True:
            if self._body is None:
                self._body = self._store._open_body(self._sha256, self._at, self._stop)
            try:
                piece: bytes = self._body.read(size)
                if not piece:
                    raise EOFError(f"the answer ended at byte {self._at} of {self._stop}")
            except (BotoCoreError, OSError, EOFError) as error:
                self.close()
                if not self._resumes_left:
                    raise self._store._unavailable(f"read {self._sha256}", error) from error
                self._resumes_left -= 1
                continue
            self._at += len(piece)
            return piece

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
