"""Digests that prove that bytes arrived unchanged (RFC 9530, and FMA's ETags)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

__all__ = ["content_digest", "digest_field", "expected_sha256", "sha256_of_etag"]

_SHA256_MEMBER = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]+):")
_STRONG_SHA256_ETAG = re.compile(r'"([0-9a-f]{64})"')


def content_digest(body: bytes) -> str:
    """The value of a Content-Digest header for a body."""
    return digest_field(hashlib.sha256(body).digest())


def digest_field(sha256: bytes) -> str:
    """The value of a Content-Digest header for a body with this SHA-256."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def expected_sha256(header: str | None) -> str | None:
    """The sha256, in hex, of a Content-Digest or Repr-Digest header; None when it has none."""
    match = _SHA256_MEMBER.search(header or "")
    if match is None:
        return None
    try:
        digest = base64.b64decode(match[1], validate=True)
    except binascii.Error:
        return None
    return digest.hex() if len(digest) == hashlib.sha256().digest_size else None


def sha256_of_etag(etag: str | None) -> str | None:
    """The sha256 in a strong ETag of weights; None for any other ETag."""
    match = _STRONG_SHA256_ETAG.fullmatch(etag or "")
    return match[1] if match else None
