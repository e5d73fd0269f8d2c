"""Bodies must say how long they are, before anything reads them."""

from typing import Any

from rest_framework.request import Request

from fma_api.errors import LengthRequired
from fma_api.v1.known_queries import KnownQueries
from fma_api.v1.schema import ProblemSchema


class AnnouncedBodies(KnownQueries):
    # Not a docstring, which would describe every operation in the OpenAPI document: this is a view of version 1, where
    # a chunked body is refused with 411. Django would take it for an empty one, and complain of missing fields.

    schema = ProblemSchema()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
            raise LengthRequired()
