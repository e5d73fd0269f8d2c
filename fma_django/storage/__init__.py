"""Keep the bytes of updates, aggregates and artifacts, on disk or on S3, as FMA_STORAGE_URL says."""

from __future__ import annotations

from fma_django.storage.blob_store import BlobStore, Progress, RemoteBlobs, StoredBlob
from fma_django.storage.choose import get_store, store_from_url
from fma_django.storage.errors import (
    BlobCorrupt,
    BlobMissing,
    InvalidBlobName,
    StorageError,
    StorageUnavailable,
)

__all__ = [
    "BlobCorrupt",
    "BlobMissing",
    "BlobStore",
    "InvalidBlobName",
    "Progress",
    "RemoteBlobs",
    "StorageError",
    "StorageUnavailable",
    "StoredBlob",
    "get_store",
    "store_from_url",
]
