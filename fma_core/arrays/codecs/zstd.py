"""Bodies in the content coding `zstd`: one frame, read with no more memory than the coding requires.

Source: RFC 8878 (format), RFC 9659 (windows of at most 8 MiB).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator

from fma_core.errors import MalformedZstd, TruncatedBody, UnsupportedCoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODING = "zstd"
WINDOW_LOG = 23
PIECE_BYTES = 2**18
# Higher levels take time and gain little: the low bits of weights are noise.
LEVEL = 3


def is_zstd(content_encoding: str) -> bool:
    """Whether a body with this Content-Encoding is compressed. Raises UnsupportedCoding for other codings."""
    coding = content_encoding.strip().lower()
    if coding in {"", "identity"}:
        return False
    if coding != CODING:
        raise UnsupportedCoding(
            f"Content-Encoding {content_encoding[:40]!r} is not read here; send {CODING}, or the bytes as they are"
        )
    return True


def decoded(read: Callable[[int], bytes | memoryview], *, size_bytes: int) -> Callable[[int], bytes]:
    """A function read(n) of the decoded content of a frame of `size_bytes`: at most n bytes, none at the end.

    Nothing is decoded in advance, so that a frame with enormous content costs only the part that is read.
    Its calls raise MalformedZstd, and TruncatedBody when `read` ends before `size_bytes`.
    """
    frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})
    missing = size_bytes

    def next_piece() -> bytes | memoryview:
        nonlocal missing
        piece = read(min(missing, PIECE_BYTES))
        if not piece and missing:
            raise TruncatedBody(f"the body ended {missing} bytes before its announced end", missing=missing)
        missing -= len(piece)
        return piece

    def read_decoded(size: int) -> bytes:
        while not frame.eof:
            piece: bytes | memoryview = b""
            if frame.needs_input:
                piece = next_piece()
                if not piece:
                    raise MalformedZstd("the body ends in the middle of its zstd frame")
            try:
                decompressed = frame.decompress(piece, size)
            except zstd.ZstdError as error:
                raise MalformedZstd(f"the body is not a zstd frame that is read here: {error}") from error
            if decompressed:
                return decompressed
        if missing or frame.unused_data:
            raise MalformedZstd("the body goes on after its zstd frame; it must be one frame")
        return b""

    return read_decoded


def encoded(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Compress pieces into one frame, which is given in pieces."""
    frame = zstd.ZstdCompressor(
        options={
            zstd.CompressionParameter.compression_level: LEVEL,
            zstd.CompressionParameter.checksum_flag: 0,  # Content-Digest is the better check
        }
    )
    for piece in pieces:
        if compressed := frame.compress(piece):
            yield compressed
    yield frame.flush()
