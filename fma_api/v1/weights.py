"""Answers that are weights: as JSON in the model's layout or as safetensors, with ETag, 304 and ranges."""

import re
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from rest_framework.request import Request

from fma_api.errors import RangeNotSatisfiable
from fma_api.front.responses import StoredFile
from fma_api.renderers import SAFETENSORS
from fma_core.arrays.codecs.json_pieces import json_pieces
from fma_core.arrays.codecs.safetensors import Limits, read_header
from fma_core.errors import FMAError, InvalidSpec, InvalidWeights, TruncatedBody
from fma_django import conf
from fma_django.models import EvaluationRound, ModelAggregate, ModelArtifact, ModelUpdate
from fma_django.storage import BlobCorrupt, get_store
from fma_django.storage.pieces import Pieces

Weights = ModelAggregate | ModelArtifact | ModelUpdate | EvaluationRound

SMALL_BYTES = 2**18
"""JSON of weights up to here is written whole, and so has a Content-Length."""
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def weights_response(
    request: Request,
    weights: Weights,
    *,
    envelope: tuple[bytes, bytes] = (b"", b""),
    headers: Mapping[str, str] = {},
) -> HttpResponseBase:
    """The weights of a row, in the form that `Accept` asks for.

    envelope: what stands before and after the weights when they are JSON.
    """
    is_binary = wants_safetensors(request)
    # A strong ETag names bytes, so each form has its own; the envelope is part of the JSON form.
    etag = f'"{weights.sha256}-{weights._meta.model_name}-{weights.pk}.json"'
    if is_binary:
        response = blob_response(request, weights.sha256, weights.size_bytes)
    elif _matches(request, etag):
        response = _with_etag(HttpResponse(status=304), etag)
    else:
        response = json_response(weights, before=envelope[0], after=envelope[1], etag=etag)
    for name, value in headers.items():
        response[name] = value
    return response


def blob_response(request: Request | HttpRequest, sha256: str, size_bytes: int) -> HttpResponseBase:
    """A safetensors file of the store."""
    etag = f'"{sha256}"'
    if _matches(request, etag):
        return _with_etag(HttpResponse(status=304), etag)
    seconds = conf.current().s3_presigned_s
    if seconds and request.method == "GET":
        url = get_store().presigned_url(sha256, seconds=seconds)
        if url is not None:
            return _with_etag(HttpResponse(status=307, headers={"Location": url}), etag)
    return _with_etag(_safetensors(request, sha256, size_bytes, etag), etag)


def _with_etag(response: HttpResponseBase, etag: str) -> HttpResponseBase:
    response["ETag"] = etag
    response["Vary"] = "Accept"
    response["Cache-Control"] = "private, no-cache"
    return response


def wants_safetensors(request: Request) -> bool:
    return bool(request.accepted_renderer.media_type == SAFETENSORS)


def json_response(
    weights: Weights, *, before: bytes = b"", after: bytes = b"", etag: str | None = None
) -> HttpResponseBase:
    """The weights in the JSON layout in which the model's weights came, between `before` and `after`.

    Large ones are read and written block by block: their text takes several times the memory of the file.
    """
    pieces = _between(before, _json_pieces(weights), after)
    response: HttpResponseBase
    if weights.size_bytes <= SMALL_BYTES:
        response = HttpResponse(b"".join(pieces), content_type="application/json")
    else:
        response = StreamingHttpResponse(pieces, content_type="application/json")
    return response if etag is None else _with_etag(response, etag)


def _between(before: bytes, pieces: Iterator[bytes], after: bytes) -> Iterator[bytes]:
    """A generator, which Django closes with the answer, and which then closes the one within."""
    yield before
    yield from pieces
    yield after


def _json_pieces(weights: Weights) -> Iterator[bytes]:
    """Raises BlobCorrupt, for a header that is none at once."""
    # Stored weights were within the limits when they came.
    size = weights.size_bytes
    file = _Blob(weights.sha256, size)
    try:
        header = read_header(
            file.read_on,
            size_bytes=size,
            limits=Limits(max_bytes=size, max_arrays=size, max_header_bytes=size),
        )
    except (InvalidSpec, InvalidWeights) as error:
        file.close()
        raise file.corrupt(error) from error
    return _checked(json_pieces(header, file.read, weights.federated_model.layout or "named"), file)


def _checked(pieces: Iterator[bytes], file: "_Blob") -> Iterator[bytes]:
    try:
        yield from pieces
    except (InvalidSpec, InvalidWeights) as error:
        raise file.corrupt(error) from error
    finally:
        file.close()


class _Blob:
    """A file of the store, read from its beginning to its end; each jump is a request to the store."""

    def __init__(self, sha256: str, size_bytes: int) -> None:
        self._sha256, self._size_bytes = sha256, size_bytes
        self._position = 0
        self._left = memoryview(b"")
        self._pieces = get_store().open_range(sha256, whole_bytes=size_bytes)

    def read(self, start: int, size: int) -> bytes:
        if start != self._position:
            self.close()
            self._pieces = get_store().open_range(self._sha256, start, whole_bytes=self._size_bytes)
            self._position, self._left = start, memoryview(b"")
        return self.read_on(size)

    def read_on(self, size: int) -> bytes:
        parts, missing = [], size
        while missing:
            if not self._left:
                self._left = memoryview(next(self._pieces, b""))
                if not self._left:
                    raise self.corrupt(TruncatedBody("the file ended before its announced end"))
            parts.append(self._left[:missing])
            self._left = self._left[missing:]
            missing -= len(parts[-1])
        self._position += size
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the file, or the connection, which stays open until somebody asks for more than its last byte."""
        if isinstance(self._pieces, Generator | Pieces):
            self._pieces.close()

    def corrupt(self, error: FMAError) -> BlobCorrupt:
        """The weights were valid when they came: the fault is not the caller's."""
        return BlobCorrupt(f"blob {self._sha256} is damaged: {error.message}", sha256=self._sha256)


def _safetensors(request: Request | HttpRequest, sha256: str, size_bytes: int, etag: str) -> HttpResponseBase:
    byte_range = _range(request, size_bytes, etag)
    start, length = byte_range or (0, size_bytes)
    store = get_store()
    # A file that has been cut would break off an answer, and the client take it for a bad line.
    path = store.local_path(sha256, whole_bytes=size_bytes)
    options: dict[str, Any] = {"status": 206 if byte_range else 200, "content_type": SAFETENSORS}
    response: StreamingHttpResponse
    if path is None:
        response = StreamingHttpResponse(
            store.open_range(sha256, start, length, whole_bytes=size_bytes), **options
        )
    else:
        part = None if byte_range is None else (start, start + length)
        pieces = _opened_later(sha256, start, length)
        response = StoredFile(pieces, path=str(path), part=part, **options)
    response["Content-Length"] = str(length)
    response["Accept-Ranges"] = "bytes"
    if byte_range:
        response["Content-Range"] = f"bytes {start}-{start + length - 1}/{size_bytes}"
    return response


def _opened_later(sha256: str, start: int, length: int) -> Iterator[bytes]:
    """Open the file when it is read: the front sends files by itself, and nobody reads here."""
    yield from get_store().open_range(sha256, start, length)


def _range(request: Request | HttpRequest, size_bytes: int, etag: str) -> tuple[int, int] | None:
    """(start, length) of the one range that is asked for; None for the whole.

    A header that is not one range of bytes asks for nothing: RFC 9110, section 14.2, lets a server ignore it.
    """
    header = request.META.get("HTTP_RANGE")
    if header is None or request.method != "GET" or request.META.get("HTTP_IF_RANGE", etag) != etag:
        return None
    match = RANGE.fullmatch(header.strip())
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if first and last and int(last) < int(first):
        return None
    if first == "":
        start, end = max(0, size_bytes - int(last)), size_bytes
    else:
        start, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
    if start >= size_bytes or end <= start:
        raise RangeNotSatisfiable(
            f"the weights have {size_bytes} bytes; the range {header[:100]!r} has none of them",
            size_bytes=size_bytes,
        )
    return start, end - start


def _matches(request: Request | HttpRequest, etag: str) -> bool:
    header = request.META.get("HTTP_IF_NONE_MATCH")
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags
