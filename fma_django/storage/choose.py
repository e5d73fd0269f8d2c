"""Make the store that an address names."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from django.conf import settings
from django.core.signals import setting_changed

from fma_django.storage.address import Folder, where_is, without_secrets
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
    try:
        place = where_is(url)
    except ValueError as error:
        raise ValueError(f"FMA_STORAGE_URL must be {error}; found {without_secrets(url)!r}") from None
    if isinstance(place, Folder):
        return DiskStore(place.path)
    return S3Store(
        place.name,
        place.prefix,
        endpoint_url=s3_endpoint_url or None,
        spool_dir=Path(spool_dir) if spool_dir else None,
    )


@cache
def get_store() -> BlobStore:
    """The store of this installation, from the settings; one per process."""
    url, endpoint_url, spool_dir = (getattr(settings, name, None) for name in SETTINGS)
    return store_from_url(str(url), s3_endpoint_url=endpoint_url, spool_dir=spool_dir)


def _forget_store(*, setting: str, **_: object) -> None:
    if setting in SETTINGS:
        get_store.cache_clear()


setting_changed.connect(_forget_store, dispatch_uid="fma_django.storage.forget_store")
