"""What a view may tell the front of its answer, as an attribute of the response.

Under another WSGI server such a response goes out as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponseBase

MAY_WAIT = "fma.may_wait"
"""In the environment of a request: whether there is a front, with a place for it."""


@dataclass(frozen=True)
class WaitsFor:
    """`response.waits_for`: there is nothing to say yet.

    The front keeps the client, without a thread, until one of the topics (fma_django.wakeups) is heard or the seconds
    are over; then it asks Django the same again. The request must be one that may be repeated.
    """

    topics: frozenset[str]
    seconds: float


def is_kept(environ: Mapping[str, Any], response: HttpResponseBase) -> bool:
    """Whether this answer is not sent now, because the same will be asked again."""
    return bool(environ.get(MAY_WAIT)) and getattr(response, "waits_for", None) is not None


@dataclass(frozen=True)
class StoredFile:
    """`response.file`: the body is a file, which never changes, or the bytes [start, end) of it.

    The front has them sent without a thread; elsewhere the response streams the same bytes by itself.
    """

    path: str
    part: tuple[int, int] | None = None
