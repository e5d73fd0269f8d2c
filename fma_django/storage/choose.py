"""Make the store that an address names."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.signals import setting_changed

from fma_django.storage.blob_store import BlobStore
from fma_django.storage.disk import DiskStore
from fma_django.storage.s3 import S3Store

SETTINGS = ("FMA_STORAGE_URL", "FMA_S3_ENDPOINT_URL", "FMA_SPOOL_DIR")
"""The settings that `get_store` reads, in every process."""


def store_from_url(
    url: str, *, s3_endpoint_url: str | None = None, spool_dir: Path | str | None = None
) -> BlobStore:
    """The store at `file:///absolute/folder` or `s3://bucket/prefix`. Nothing is made or contacted yet.

    s3_endpoint_url: the server, for S3-compatible stores other than Amazon's.
    spool_dir: where files are written before they are stored; only S3 asks, a disk store spools inside its own folder.
    Raises ValueError, saying what was expected, for any other address.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError(f"a storage URL has no '?' or '#' part (write them as %3F and %23); got {url!r}")
    path = unquote(parts.path)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or path.strip("/") == "":
            raise ValueError(
                f"a file storage URL is file:/// and an absolute folder, as in file:///srv/fma; got {url!r}"
            )
        return DiskStore(Path(path))
    if parts.scheme == "s3":
        if not parts.netloc or "@" in parts.netloc or ":" in parts.netloc:
            raise ValueError(
                "an S3 storage URL is s3://bucket/prefix (the server goes into FMA_S3_ENDPOINT_URL, "
                f"credentials into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY); got {_without_secrets(url)!r}"
            )
        return S3Store(
            parts.netloc,
            path.strip("/"),
            endpoint_url=s3_endpoint_url or None,
            spool_dir=Path(spool_dir) if spool_dir else None,
        )
    raise ValueError(f"a storage URL starts with file:/// or s3://; got {_without_secrets(url)!r}")


@cache
def get_store() -> BlobStore:
    """The store of this installation, from the settings; one per process."""
    url, endpoint_url, spool_dir = (getattr(settings, name, None) for name in SETTINGS)
    return store_from_url(str(url), s3_endpoint_url=endpoint_url, spool_dir=spool_dir)


def _forget_store(*, setting: str, **_: object) -> None:
    if setting in SETTINGS:
        get_store.cache_clear()


setting_changed.connect(_forget_store, dispatch_uid="fma_django.storage.forget_store")


def _without_secrets(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://…@{rest.rpartition('@')[2]}" if "@" in rest else url
