"""Bodies must say how long they are, or be small, before anything reads them."""

from typing import Any

from rest_framework.request import Request

from fma_api.chunked_bodies import read_chunks
from fma_api.v1.known_queries import KnownQueries
from fma_api.v1.schema import ProblemSchema


class AnnouncedBodies(KnownQueries):
    # Not a docstring, which would describe every operation in the OpenAPI document: this is a view of version 1, where
    # a body in chunks is read whole when its parser has a limit for it, and refused with 411 otherwise. Django would
    # take it for an empty one, and complain of missing fields.

    schema = ProblemSchema()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        asked: Any = request
        parser = asked.negotiator.select_parser(request, asked.parsers)
        read_chunks(request._request, read_bytes=getattr(parser, "most_bytes", None))
