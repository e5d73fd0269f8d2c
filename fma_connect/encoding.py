"""Weights as the body of a request, made piece by piece from the arrays, so that memory never holds the model twice.

The body is the canonical safetensors file. With `quantise` it has narrower numbers, with `compress` it is a zstd frame
(docs/reference/wire-formats.md). The length of a frame is known only at its end, so it is written to a temporary file
first.
"""

from __future__ import annotations

import hashlib
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import IO, Any, Protocol

from fma_connect.digest import content_digest, digest_field
from fma_connect.exceptions import InvalidArgument, InvalidRequest
from fma_connect.pulled import Arrays
from fma_core.arrays.codecs import zstd
from fma_core.arrays.codecs.header import canonical_entries, encoded_header
from fma_core.arrays.codecs.quantise import Narrowing, Quantisation, blocks, narrowings
from fma_core.arrays.codecs.safetensors import checked_bytes, unchecked_bytes
from fma_core.arrays.spec import ArraySpec, Spec
from fma_core.errors import FMAError

__all__ = ["SAFETENSORS", "BytesBody", "EncodedBody", "Quantisation", "RequestBody", "encoded", "explained"]

SAFETENSORS = "application/vnd.safetensors"
PIECE_BYTES = 2**20
# Small arrays are sent together: a system call for each would take longer than their bytes.
JOINED_BYTES = 2**18
IN_MEMORY_BYTES = 2**23


class RequestBody(Protocol):
    """The body of a request, which can be sent several times."""

    @property
    def size_bytes(self) -> int:
        """The number of bytes."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Content-Type, Content-Digest, and Content-Encoding if there is one."""

    def pieces(self, start: int = 0) -> Iterator[bytes | memoryview]:
        """The bytes from `start` on."""


class BytesBody:
    """A body of bytes in memory."""

    def __init__(self, data: bytes, content_type: str) -> None:
        self._data = memoryview(data)
        self.size_bytes = len(data)
        self.headers = {
            "Content-Type": content_type,
            "Content-Digest": content_digest(data),
        }

    def pieces(self, start: int = 0) -> Iterator[bytes | memoryview]:
        for at in range(start, self.size_bytes, PIECE_BYTES):
            yield self._data[at : at + PIECE_BYTES]


class EncodedBody:
    """A safetensors body, made from the arrays each time it is sent; the arrays must not change meanwhile."""

    def __init__(self, arrays: Arrays, quantise: Quantisation | None = None) -> None:
        self._arrays = arrays
        self._bytes_of = checked_bytes  # until all values have been checked
        spec = Spec.of(arrays)
        self._narrowings: Mapping[str, Narrowing] = {}
        metadata: Mapping[str, str] = {}
        if quantise is not None:
            self._narrowings, metadata = narrowings(arrays, quantise)
            spec = Spec(tuple(self._sent_as(array) for array in spec.arrays))
        self._entries = canonical_entries(spec)
        self._header = encoded_header(self._entries, metadata)
        self.size_bytes = len(self._header) + spec.data_size_bytes

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers, after a check of every value. Raises the errors of fma_core for invalid weights."""
        digest = hashlib.sha256()
        for _, piece in self._all_pieces(0):
            digest.update(piece)
        self._bytes_of = unchecked_bytes
        return {"Content-Type": SAFETENSORS, "Content-Digest": digest_field(digest.digest())}

    def pieces(self, start: int = 0) -> Iterator[bytes | memoryview]:
        return _joined(_from(start, self._all_pieces(start)))

    def _all_pieces(self, start: int) -> Iterator[tuple[int, bytes | memoryview]]:
        yield 0, self._header
        for entry in self._entries:
            at = len(self._header) + entry.start
            if at + entry.array.size_bytes > start:
                for piece in self._pieces_of(entry.array):
                    yield at, piece
                    at += len(piece)

    def _pieces_of(self, sent_as: ArraySpec) -> Iterator[memoryview]:
        array, narrowing = self._arrays[sent_as.name], self._narrowings.get(sent_as.name)
        if narrowing is not None:
            first = 0
            for block in blocks(array):
                yield narrowing(block, first).view("u1").data
                first += len(block)
            return
        data = self._bytes_of(sent_as, array)
        for at in range(0, len(data), PIECE_BYTES):
            yield data[at : at + PIECE_BYTES]

    def _sent_as(self, array: ArraySpec) -> ArraySpec:
        return self._narrowings[array.name].sent_as if array.name in self._narrowings else array


class CompressedBody:
    """A body that is the zstd frame of another one."""

    def __init__(self, body: EncodedBody) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)
        weakref.finalize(self, self._file.close)
        digest = hashlib.sha256()
        for piece in zstd.encoded(body.pieces()):
            self._file.write(piece)
            digest.update(piece)
        self.size_bytes = self._file.tell()
        self.headers = {
            "Content-Type": SAFETENSORS,
            "Content-Encoding": zstd.CODING,
            "Content-Digest": digest_field(digest.digest()),
        }

    def pieces(self, start: int = 0) -> Iterator[bytes | memoryview]:
        self._file.seek(start)
        while piece := self._file.read(PIECE_BYTES):
            yield piece


def encoded(arrays: Arrays, *, compress: bool = False, quantise: Quantisation | None = None) -> RequestBody:
    """Encode weights as a body, and check every value. Raises InvalidRequest for arrays that are not valid weights."""
    if not isinstance(compress, bool):
        # The name of another coding would also be true, and send zstd.
        raise InvalidArgument(f"compress can be True, for a zstd frame, or False; got {compress!r}")
    _refuse_other_weights(arrays)
    try:
        body = EncodedBody(arrays, quantise)
        if compress:
            return CompressedBody(body)
        _ = body.headers
    except FMAError as error:
        raise InvalidRequest(
            code=error.code, detail=error.message, fields=error.facts, message=error.message
        ) from error
    except ValueError as error:  # an unknown kind of quantisation
        raise InvalidArgument(str(error)) from error
    return body


def _refuse_other_weights(arrays: Any) -> None:
    """Raise InvalidRequest for weights in another form than named numpy arrays, with the adapter that converts them."""
    if isinstance(arrays, Mapping):
        other = [
            name for name, array in arrays.items() if hasattr(array, "state_dict") or hasattr(array, "detach")
        ]
        if not other:
            return
        found, adapter = f"array {other[0]!r} is a {type(arrays[other[0]]).__name__}", "torch_state_dict"
    else:
        found = f"got a {type(arrays).__name__}"
        if isinstance(arrays, list | tuple):
            adapter = "array_list"
        elif hasattr(arrays, "state_dict"):
            adapter = "torch_state_dict"
        elif hasattr(arrays, "get_params"):
            adapter = "sklearn_estimator"
        else:
            adapter = ""
    wanted = "weights are a mapping of names to numpy arrays"
    hint = f": fma_connect.adapters.{adapter}.to_arrays makes one" if adapter else ", such as {'w': array}"
    message = f"{wanted}{hint}; {found}"
    raise InvalidRequest(code="invalid_spec", detail=message, message=message)


def explained(refused: InvalidRequest, *, compress: bool) -> InvalidRequest:
    """Explain a refusal when the server does not support compressed bodies; return other refusals unchanged."""
    # A server that ignores Content-Encoding reads the frame as damaged safetensors.
    if not compress or (refused.status != 415 and refused.code != "malformed_safetensors"):
        return refused
    return InvalidRequest(
        refused.status,
        code=refused.code,
        detail="this server does not read zstd bodies: push with compress=False",
        message=refused.message,
    )


def _from(start: int, pieces: Iterable[tuple[int, bytes | memoryview]]) -> Iterator[bytes | memoryview]:
    for at, piece in pieces:
        if at + len(piece) > start:
            yield piece[max(start - at, 0) :]


def _joined(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    waiting: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= JOINED_BYTES:
            yield b"".join(waiting) if len(waiting) > 1 else piece
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
