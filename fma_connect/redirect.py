"""The one redirect that is followed: to the store, which hands out weights by itself (FMA_S3_PRESIGNED_SECONDS).

A credential goes to the address that the caller named and to no other, so nothing of the first request is repeated
there but the range that it wanted. What arrives is checked against the hash that the server has said before.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from fma_connect.digest import sha256_of_etag

__all__ = ["FROM_STORE", "headers_for_store", "kept_headers", "store_of"]

FROM_STORE = frozenset({httpx.codes.OK, httpx.codes.PARTIAL_CONTENT})


def store_of(response: httpx.Response) -> httpx.URL | None:
    """Where the weights are; None for an answer that sends nowhere, or where nobody should follow.

    Who asked by https is not sent on without it.
    """
    request, location = response.request, response.headers.get("location")
    is_ours = (
        request.method == "GET"
        and response.status_code == httpx.codes.TEMPORARY_REDIRECT
        and sha256_of_etag(response.headers.get("etag")) is not None
    )
    if not is_ours or location is None:
        return None
    try:
        target = request.url.join(location)
    except httpx.InvalidURL:
        return None
    is_safe = target.scheme == "https" or (target.scheme == "http" and request.url.scheme == "http")
    return target if is_safe and target.host and not target.userinfo else None


def headers_for_store(sent: Mapping[str, str], redirect: httpx.Response) -> dict[str, str]:
    """A range of what the server says is still the same weights; nothing else."""
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    if "Range" in sent and sent.get("If-Range", redirect.headers["etag"]) == redirect.headers["etag"]:
        headers["Range"] = sent["Range"]
    return headers


def kept_headers(redirect: httpx.Response) -> dict[str, str]:
    """What the server said of the weights; a store has an ETag of its own, which is no hash."""
    return {
        name: value for name, value in redirect.headers.items() if name == "etag" or name.startswith("fma-")
    }
