"""The two answers of a view that the front treats in its own way. Under another WSGI server they go out as they are."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse

MAY_WAIT = "fma.may_wait"
"""In the environment of a request: whether there is a front, with a place for it."""


class NothingYet(HttpResponse):
    """There is nothing to say yet.

    The front keeps the client, without a thread, until one of the topics (fma_django.wakeups) is heard or the seconds
    are over; then it asks Django the same again. The request must be one that may be repeated. 0 seconds: no wait.
    """

    def __init__(
        self, content: bytes = b"", *, topics: Iterable[str], seconds: float, **options: Any
    ) -> None:
        super().__init__(content, **options)
        self.topics = frozenset(topics)
        self.seconds = seconds


class StoredFile(StreamingHttpResponse):
    """A file that never changes, or its bytes [start, end).

    The front has it sent without a thread; elsewhere the response streams `pieces`, the same bytes.
    """

    def __init__(
        self, pieces: Iterable[bytes], *, path: str, part: tuple[int, int] | None = None, **options: Any
    ) -> None:
        super().__init__(pieces, **options)
        self.path = path
        self.part = part


def is_kept(response: HttpResponseBase, environ: Mapping[str, Any]) -> TypeGuard[NothingYet]:
    """Whether this answer is not sent now, because the same will be asked again."""
    return isinstance(response, NothingYet) and response.seconds > 0 and bool(environ.get(MAY_WAIT))
