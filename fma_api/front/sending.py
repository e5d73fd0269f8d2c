"""Send the answers of Django through granian."""

from collections.abc import Iterator
from itertools import chain
from typing import cast

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse

from fma_api.front.pipe import pour
from fma_api.front.protocol import Exchange, Headers
from fma_api.front.responses import StoredFile

SMALL_BYTES = 64 * 1024
"""A stream of no more goes out as one piece: a style sheet, a short table."""


def send(exchange: Exchange, response: HttpResponseBase, *, is_head: bool = False) -> None:
    """Hand a response over to granian; returns when it has been taken, which is before it has arrived."""
    status, headers = response.status_code, headers_of(response)
    if is_head:
        exchange.response_empty(status, headers)
    elif isinstance(response, HttpResponse):
        exchange.response_bytes(status, headers, response.content)
    elif not isinstance(response, StoredFile):
        pieces = iter(cast("StreamingHttpResponse", response))
        first, has_ended = _first(pieces)
        if has_ended:
            exchange.response_bytes(status, headers, first)
        else:
            pour(chain([first], pieces), lambda pipe: exchange.response_file(status, headers, str(pipe)))
    elif response.part is None:
        exchange.response_file(status, headers, response.path)
    else:
        exchange.response_file_range(status, headers, response.path, *response.part)


def _first(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    """The first pieces, and whether they are all."""
    first = bytearray()
    for piece in pieces:
        first += piece
        if len(first) > SMALL_BYTES:
            return bytes(first), False
    return bytes(first), True


def headers_of(response: HttpResponseBase) -> Headers:
    headers: Headers = [(name, str(value)) for name, value in response.items()]
    headers += [("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values()]
    return headers
