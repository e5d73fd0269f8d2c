"""How an answer of Django's leaves."""

from typing import cast

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse

from fma_api.front.marks import StoredFile
from fma_api.front.pipe import pour
from fma_api.front.protocol import Exchange, Headers


def send(exchange: Exchange, response: HttpResponseBase, *, is_head: bool = False) -> None:
    """Hand a response over to granian; returns when it has been taken, which is before it has arrived."""
    status, headers = response.status_code, headers_of(response)
    file: StoredFile | None = getattr(response, "file", None)
    if is_head:
        exchange.response_empty(status, headers)
    elif isinstance(response, HttpResponse):
        exchange.response_bytes(status, headers, response.content)
    elif file is None:
        pieces = iter(cast("StreamingHttpResponse", response))
        pour(pieces, lambda pipe: exchange.response_file(status, headers, str(pipe)))
    elif file.part is None:
        exchange.response_file(status, headers, file.path)
    else:
        exchange.response_file_range(status, headers, file.path, *file.part)


def headers_of(response: HttpResponseBase) -> Headers:
    found: Headers = [(name, str(value)) for name, value in response.items()]
    found += [("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values()]
    return found
