"""How an answer of Django's leaves."""

from django.http import HttpResponse, HttpResponseBase

from fma_api.front.protocol import Exchange, Headers


def send(exchange: Exchange, response: HttpResponseBase, *, is_head: bool = False) -> None:
    """Hand a response over to granian; returns when it has been taken, which is before it has arrived."""
    headers = headers_of(response)
    if is_head:
        exchange.response_empty(response.status_code, headers)
    elif isinstance(response, HttpResponse):
        exchange.response_bytes(response.status_code, headers, response.content)
    else:
        stream = exchange.response_stream(response.status_code, headers)
        for piece in response:
            stream.send_bytes(piece)


def headers_of(response: HttpResponseBase) -> Headers:
    found: Headers = [(name, str(value)) for name, value in response.items()]
    found += [("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values()]
    return found
