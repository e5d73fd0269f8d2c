"""The interface of granian for a request (RSGI 1.5), as far as it is used here; its own types are not importable.

Source: https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

ReadT_co = TypeVar("ReadT_co", covariant=True)
Headers = list[tuple[str, str]]


class RequestHeaders(Protocol):
    def get(self, key: str, default: Any = None) -> Any: ...

    def items(self) -> Headers: ...


class Scope(Protocol):
    """The head of a request. `path` has lost its percent-encoding."""

    http_version: str
    server: str
    client: str
    scheme: str
    method: str
    path: str
    query_string: str
    headers: RequestHeaders


class Reading(Awaitable[ReadT_co], Protocol[ReadT_co]):
    def cancel(self) -> bool: ...


class Exchange(Protocol):
    """One request and its answer. Answers may be given from any thread, everything else is for the event loop."""

    def __call__(self) -> Reading[bytes]:
        """The whole body; raises when it does not arrive."""

    def __aiter__(self) -> "Exchange": ...

    def __anext__(self) -> Awaitable[bytes]:
        """A piece of the body; empty at its end, and when the client has gone."""

    def client_disconnect(self) -> Awaitable[None]: ...

    def response_empty(self, status: int, headers: Headers) -> None: ...

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None: ...

    def response_file(self, status: int, headers: Headers, file: str) -> None: ...

    def response_file_range(self, status: int, headers: Headers, file: str, start: int, end: int) -> None: ...
