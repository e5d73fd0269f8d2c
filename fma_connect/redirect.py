"""The only redirect that is followed: to the object store, which serves weights itself (FMA_S3_PRESIGNED_SECONDS).

A credential is sent only to the address that the caller named, so the request to the store contains nothing of the
first one but its range. The weights are checked against the hash in the server's answer.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from fma_connect.digest import sha256_of_etag

__all__ = ["headers_for_store", "speak_for_server", "store_of", "why_unusable"]

_FROM_STORE = frozenset({httpx.codes.OK, httpx.codes.PARTIAL_CONTENT})
_OWN = frozenset({"etag", "repr-digest", "content-digest", "content-encoding"})


def store_of(response: httpx.Response) -> httpx.URL | None:
    """The URL of the weights in the store; None for an answer that is no redirect, or that must not be followed.

    A call over https is never continued over http.
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
    """The headers for the store: the range of the request, if the weights are still the same, and no credential."""
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    if "Range" in sent and sent.get("If-Range", redirect.headers["etag"]) == redirect.headers["etag"]:
        headers["Range"] = sent["Range"]
    return headers


def why_unusable(response: httpx.Response) -> str | None:
    """The reason why the store's answer cannot be used; None when it can be checked against the server's hash."""
    if response.status_code not in _FROM_STORE:
        return f"answered {response.status_code}"
    if _is_part(response) and "range" not in response.request.headers:
        return "answered a part where the whole was asked for"
    coding = response.headers.get("content-encoding", "identity")
    if coding.strip().lower() != "identity":
        return f"answered in the coding {coding!r} where none was asked for"
    return None


def speak_for_server(response: httpx.Response, redirect: httpx.Response) -> None:
    """Replace the store's headers about the weights by those of the server.

    The store's own ETag is not a hash, and only the server may say what the bytes must be.
    """
    for name in list(response.headers):
        if name in _OWN or name.startswith("fma-"):
            del response.headers[name]
    ours = redirect.headers.items()
    response.headers.update(
        {name: value for name, value in ours if name == "etag" or name.startswith("fma-")}
    )
    if _is_part(response):
        response.status_code = httpx.codes.PARTIAL_CONTENT  # rclone answers 200 for a part


def _is_part(response: httpx.Response) -> bool:
    return response.status_code == httpx.codes.PARTIAL_CONTENT or "content-range" in response.headers
