"""Read the address of a store, without making it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; other stores take underscores as well.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")


class Folder(NamedTuple):
    """A folder of this machine."""

    path: Path


class Bucket(NamedTuple):
    """A bucket, and the prefix of all names in it (which may be empty)."""

    name: str
    prefix: str


def where_is(url: str) -> Folder | Bucket:
    """Where the store `file:///absolute/folder` or `s3://bucket/prefix` lies.

    Raises ValueError for any other address: its message says what a storage URL must be.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its message would show a part of what stands before an @
        raise ValueError("a storage URL that starts with file:/// or s3://") from None
    path = unquote(parts.path)
    if parts.query or parts.fragment:
        raise ValueError("a storage URL without a '?' or '#' part (write these as %3F and %23)")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or path.strip("/") == "":
            raise ValueError(
                "a storage URL of three slashes and an absolute folder after file:, as in file:///srv/fma"
            )
        return Folder(Path(path))
    if parts.scheme == "s3":
        if not _BUCKET.fullmatch(parts.netloc):
            raise ValueError(
                "a storage URL of a bucket and a prefix after s3://, as in s3://bucket/prefix (the server goes into "
                "FMA_S3_ENDPOINT_URL, credentials into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
            )
        return Bucket(parts.netloc, path.strip("/"))
    raise ValueError("a storage URL that starts with file:/// or s3://")


def without_secrets(url: str) -> str:
    """The address as it may be shown: whatever stands before an @ is left out."""
    before, at, rest = url.rpartition("@")
    scheme, separator, _ = before.partition("://")
    return f"{scheme + separator if separator else ''}…@{rest}" if at else url
