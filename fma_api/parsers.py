"""Parsers of the bodies of requests: JSON whole and bounded, safetensors as a stream."""

import base64
import binascii
import hashlib
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Any, ClassVar

from django.http import HttpRequest, QueryDict, UnreadablePostError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from fma_api.body_pieces import read_pieces
from fma_api.errors import InvalidHeader, LengthRequired
from fma_api.json_memory import json_memory_of, keep_large_json
from fma_api.renderers import SAFETENSORS
from fma_core.arrays.codecs import json_bytes
from fma_core.arrays.codecs.zstd import is_zstd
from fma_core.errors import TooLarge, TruncatedBody, UnsupportedCoding
from fma_django import conf
from fma_django.errors import DigestMismatch
from fma_django.record.json_memory import SMALL_BYTES as SMALL_JSON_BYTES
from fma_django.record.json_process import LargeJson
from fma_django.record.weights import SafetensorsBody

JSON_BYTES = 2**20
"""The largest JSON without weights: a client's counts of an evaluation are the most that anybody needs to send."""
SMALL_BYTES = 16 * 1024
DIGEST = re.compile(r"([a-z0-9*_.-]+)=:([A-Za-z0-9+/=]*):")


class OrjsonParser(BaseParser):
    """JSON without weights; NaN and Infinity are refused."""

    media_type = "application/json"
    max_bytes: int | None = JSON_BYTES
    """None for FMA_MAX_JSON_BYTES."""

    @property
    def most_bytes(self) -> int:
        """The limit of a body, which lets it come in chunks."""
        return conf.current().max_json_bytes if self.max_bytes is None else self.max_bytes

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        request: Request = (parser_context or {})["request"]
        pieces = _pieces_of(stream, parser_context, self.max_bytes)
        announced = content_digest(request.META.get("HTTP_CONTENT_DIGEST"))
        if announced is not None and announced != (arrived := _sha256_of(pieces)):
            raise DigestMismatch(
                f"Content-Digest says sha-256 {announced}; the body that arrived has {arrived}"
            )
        return self._parsed(request, pieces)

    def _parsed(self, request: Request, pieces: deque[bytes]) -> Any:
        body = b"".join(pieces)
        if len(body) > SMALL_JSON_BYTES:
            json_bytes.require_few_containers(body)
            json_memory_of(request).grow_to(json_bytes.parsed_bytes(body))
        return json_bytes.loads(body)


class WeightsJsonParser(OrjsonParser):
    """JSON with weights: when it is large, another process parses it and keeps the weights (HeldJson)."""

    max_bytes = None
    weights: ClassVar[str | None]
    """The member that has them; None for a body that is weights and nothing else."""

    def _parsed(self, request: Request, pieces: deque[bytes]) -> Any:
        size_bytes = sum(map(len, pieces))
        if size_bytes <= SMALL_JSON_BYTES:
            return super()._parsed(request, pieces)
        large = LargeJson(_dropping(pieces), size_bytes)
        keep_large_json(request, large)
        json_memory_of(request).grow_to(large.needs_bytes)
        return large.parse(weights=self.weights)


class UpdateJsonParser(WeightsJsonParser):
    """An update."""

    weights = "data"


class NewModelJsonParser(WeightsJsonParser):
    """A model, or changes of one."""

    weights = "initial_model"


class InitialModelJsonParser(WeightsJsonParser):
    """First weights."""

    weights = None


class EvaluationJsonParser(WeightsJsonParser):
    """A question for clients, about weights of its own."""

    weights = "weights"


class SmallJsonParser(OrjsonParser):
    """JSON from callers whom nobody knows yet: hashing a password of megabytes takes seconds."""

    max_bytes = SMALL_BYTES


class SmallFormParser(BaseParser):
    """A form, as small."""

    media_type = "application/x-www-form-urlencoded"
    most_bytes = SMALL_BYTES

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> QueryDict:
        return QueryDict(b"".join(_pieces_of(stream, parser_context, SMALL_BYTES)), encoding="utf-8")


class SafetensorsParser(BaseParser):
    """Hands the stream over unread: whoever takes it reads it piece by piece."""

    media_type = SAFETENSORS

    def parse(  # type: ignore[override]  # DRF passes on whatever a parser gives
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> SafetensorsBody:
        return safetensors_body((parser_context or {})["request"], stream)


class DiscardingParser(BaseParser):
    """Reads bytes and forgets them; what is left is `{"size_bytes": …}`."""

    media_type = "application/octet-stream"
    max_bytes = 4 * 2**20

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, int]:
        return {"size_bytes": sum(map(len, _pieces_of(stream, parser_context, self.max_bytes)))}


def safetensors_body(request: HttpRequest | Request, stream: IO[Any]) -> SafetensorsBody:
    """A body of weights, unread. Raises LengthRequired, InvalidHeader, UnsupportedCoding, TooLarge."""
    # Django's `read` waits for as much as it is asked for, and copies it. Under another server there is nothing else.
    piece_of = getattr(request.META.get("wsgi.input"), "read_piece", stream.read)

    def read(size: int) -> bytes | memoryview:
        try:
            piece: bytes | memoryview = piece_of(size)
            return piece
        except UnreadablePostError:
            return b""  # the sender went away: a body that ends before its announced size

    coding = request.META.get("HTTP_CONTENT_ENCODING", "")
    is_zstd(coding)  # or another one, which is refused before anything is read
    size_bytes, most = _announced_size(request), conf.current().max_update_bytes
    if size_bytes > most:
        # Before anybody counts it, or looks for room.
        raise TooLarge(
            f"the body has {size_bytes} bytes; at most {most} are accepted (FMA_MAX_UPDATE_BYTES)",
            field="data",
        )
    return SafetensorsBody(
        read=read,
        size_bytes=size_bytes,
        wire_sha256=content_digest(request.META.get("HTTP_CONTENT_DIGEST")),
        content_encoding=coding,
    )


def content_digest(header: str | None, *, name: str = "Content-Digest") -> str | None:
    """The sha-256 (hex) of a `Content-Digest` header, or of `name`; None without one, or with other algorithms only.

    Raises InvalidHeader. Source: RFC 9530.
    """
    if header is None:
        return None
    for member in header.split(","):
        match = DIGEST.fullmatch(member.strip())
        if match is None:
            raise InvalidHeader(f"{name} looks like sha-256=:<base64>: (RFC 9530); found {header[:100]!r}")
        if match[1] == "sha-256":
            try:
                digest = base64.b64decode(match[2], validate=True)
            except binascii.Error:
                digest = b""
            if len(digest) != 32:
                raise InvalidHeader(f"the sha-256 of {name} must be 32 bytes in base64")
            return digest.hex()
    return None


def _pieces_of(
    stream: IO[Any], parser_context: Mapping[str, Any] | None, max_bytes: int | None
) -> deque[bytes]:
    """The whole body, in pieces."""
    limit = conf.current().max_json_bytes if max_bytes is None else max_bytes
    request: Request = (parser_context or {})["request"]
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedCoding("only safetensors may be compressed; send this body as it is")
    size_bytes = _announced_size(request)
    if size_bytes > limit:
        setting = " (FMA_MAX_JSON_BYTES)" if max_bytes is None else ""
        raise TooLarge(f"a body of this kind may have {limit} bytes{setting}; this one has {size_bytes}")
    if size_bytes > SMALL_JSON_BYTES:
        json_memory_of(request).grow_to(2 * size_bytes)  # its pieces, and the whole that is made of them
    pieces: deque[bytes] = deque()
    with suppress(UnreadablePostError):  # the sender went away
        pieces.extend(read_pieces(stream, size_bytes))
    if (read_bytes := sum(map(len, pieces))) != size_bytes:
        raise TruncatedBody(f"the body ended after {read_bytes} of {size_bytes} bytes")
    return pieces


def _dropping(pieces: deque[bytes]) -> Iterator[bytes]:
    """Each piece, which nobody keeps any more."""
    while pieces:
        yield pieces.popleft()


def _sha256_of(pieces: deque[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _announced_size(request: HttpRequest | Request) -> int:
    announced = request.META.get("CONTENT_LENGTH")
    if not announced:
        raise LengthRequired()
    try:
        return int(announced)
    except ValueError:
        raise InvalidHeader(f"Content-Length must be a number; found {announced[:40]!r}") from None
