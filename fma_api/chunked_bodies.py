"""Bodies in chunks, whose length nobody announced: small ones are read whole, and have a length from then on."""

from collections import deque
from typing import Any, cast

from django.http import HttpRequest

from fma_api.body_pieces import Pieces, read_pieces
from fma_api.errors import LengthRequired
from fma_api.json_memory import json_memory_of
from fma_core.errors import TooLarge, TruncatedBody
from fma_django.record.json_memory import SMALL_BYTES


def is_chunked(request: HttpRequest) -> bool:
    return "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH")


def read_chunks(request: HttpRequest, *, read_bytes: int | None) -> None:
    """Read a body in chunks of at most so many bytes, as if its length had been announced; leave all other bodies.

    Call it when the caller is known: whoever sends chunks decides how much is kept in memory.
    read_bytes: None for a kind of body whose length must be known before.
    Raises LengthRequired, TooLarge, TruncatedBody.
    """
    if not is_chunked(request):
        return
    # A server that does not say this gives no end of the body.
    if read_bytes is None or not request.META.get("wsgi.input_terminated"):
        raise LengthRequired()
    stream = request.META["wsgi.input"]
    if read_bytes > SMALL_BYTES:
        json_memory_of(request).grow_to(2 * read_bytes)  # nobody has said how long it is
    pieces = deque(read_pieces(stream, read_bytes + 1))
    size_bytes = sum(map(len, pieces))
    if size_bytes > read_bytes:
        raise TooLarge(f"a body of this kind may have {read_bytes} bytes; this one, in chunks, has more")
    # Trailers look like a fault to the front. Who announces some is believed.
    if getattr(stream, "is_broken", False) and "HTTP_TRAILER" not in request.META:
        raise TruncatedBody(f"the body ended after {size_bytes} bytes, without its last chunk")
    cast("Any", request)._stream = Pieces(pieces)
    request.META["CONTENT_LENGTH"] = str(size_bytes)
    del request.META["HTTP_TRANSFER_ENCODING"]
