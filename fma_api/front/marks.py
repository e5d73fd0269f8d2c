"""What a view may tell the front of its answer, as an attribute of the response.

Under another WSGI server such a response goes out as it is.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WaitsFor:
    """`response.waits_for`: there is nothing to say yet.

    The front keeps the client, without a thread, until one of the topics (fma_django.wakeups) is heard or the seconds
    are over; then it asks Django the same again. The request must be one that may be repeated.
    """

    topics: frozenset[str]
    seconds: float


@dataclass(frozen=True)
class StoredFile:
    """`response.file`: the body is a file, which never changes, or the bytes [start, end) of it.

    The front has them sent without a thread; elsewhere the response streams the same bytes by itself.
    """

    path: str
    part: tuple[int, int] | None = None
