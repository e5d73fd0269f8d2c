"""Refusals with Retry-After, which the event loop repeats to whoever does not wait: without Django and its threads."""

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse, HttpResponseBase

from fma_api.front.protocol import Exchange, Headers
from fma_api.front.sending import headers_of

REPEATED_S = 0.8
"""Less than the least Retry-After, 1: who waits finds Django again. No longer, because a lock may be lifted before."""
STATUSES = (429, 503)
HELD_S = 0.8
"""The time for which a repeated request is held: so seldom is one connection of a flood answered."""
MOST = 1000
MOST_HELD = 4000
"""The most repeated requests that are held at one time, at 5 kB each; further ones are answered at once."""
MOST_BYTES = 4096
"""The largest body of a request, and of an answer, that is remembered."""


@dataclass(frozen=True)
class Refusal:
    status: int
    headers: Headers
    content: bytes

    def send(self, exchange: Exchange) -> None:
        exchange.response_bytes(self.status, self.headers, self.content)


class Refusals:
    """The refusals of the last REPEATED_S, by their requests. Any thread may ask and remember."""

    def __init__(self) -> None:
        self._of_requests: dict[Hashable, Refusal] = {}
        self.num_held = 0

    def of(self, environ: Mapping[str, Any], body: bytes) -> Refusal | None:
        """The refusal of the same request, to the last byte: no other one is sure to be refused, too."""
        if not self._of_requests or len(body) > MOST_BYTES:
            return None
        return self._of_requests.get(_key(environ, body))

    async def repeat(self, exchange: Exchange, refusal: Refusal) -> None:
        """Send a refusal after HELD_S."""
        if self.num_held < MOST_HELD:
            self.num_held += 1
            try:
                await asyncio.sleep(HELD_S)
            finally:
                self.num_held -= 1
        refusal.send(exchange)

    def remember(
        self,
        loop: asyncio.AbstractEventLoop,
        environ: Mapping[str, Any],
        body: bytes,
        refusal: Refusal | None,
    ) -> None:
        """refusal: None for an answer that may not be repeated."""
        if refusal is None or len(body) > MOST_BYTES or len(self._of_requests) >= MOST:
            return
        key = _key(environ, body)
        self._of_requests[key] = refusal
        loop.call_soon_threadsafe(lambda: loop.call_later(REPEATED_S, self._of_requests.pop, key, None))


def refusal_of(response: HttpResponseBase) -> Refusal | None:
    """The response as it may be repeated; None for every other one."""
    if (
        response.status_code not in STATUSES
        or not isinstance(response, HttpResponse)
        or response.cookies
        or len(response.content) > MOST_BYTES
        or not response.get("Retry-After", "0").isdecimal()
        or int(response.get("Retry-After", "0")) < REPEATED_S
    ):
        return None
    return Refusal(response.status_code, headers_of(response), response.content)


def _key(environ: Mapping[str, Any], body: bytes) -> Hashable:
    said = [(name, value) for name, value in environ.items() if isinstance(value, str)]
    return body, *sorted(said)
