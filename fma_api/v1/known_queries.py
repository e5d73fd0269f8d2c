"""A query has only parameters that its operation takes: those of the OpenAPI document.

A misspelt parameter would otherwise be ignored: an update with the weight 1, a list without its filter.
"""

from functools import cache
from threading import RLock
from typing import Any, cast
from urllib.parse import parse_qsl

from django.http import HttpRequest
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import spectacular_settings
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from fma_api.v1.unknown_names import refuse_unknown

# The first use of drf-spectacular's extensions replaces their names by classes, which another thread must not see half
# done: it would take them for missing, for ever.
DESCRIBING = RLock()


class KnownQueries(APIView):
    # Not a docstring, which would describe every operation in the OpenAPI document: a view that refuses other queries,
    # once the caller is known.

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method != "OPTIONS" and request.method in self.allowed_methods:
            refuse_unknown_parameters(request._request)


def refuse_unknown_parameters(request: HttpRequest) -> None:
    """Raises DRF's ValidationError, with what was probably meant."""
    query = request.META.get("QUERY_STRING")
    if not query:
        return
    callback = cast("Any", request.resolver_match).func
    known = parameters_of(callback, "GET" if request.method == "HEAD" else str(request.method))
    # Half the time of request.GET, which a small update does not need.
    said = dict(parse_qsl(query, keep_blank_values=True)) if query.isascii() else request.GET
    unknown = [name for name in said if name not in known]
    if unknown:
        otherwise = f"; it takes {', '.join(sorted(known))}."
        refuse_unknown(unknown, known, says="The query takes no {!r}", otherwise=otherwise)


@cache
def parameters_of(callback: Any, method: str) -> frozenset[str]:
    """The names that the OpenAPI document lists for an operation, and `format`, which every view of DRF reads."""
    with DESCRIBING:
        generator = cast("Any", SchemaGenerator)()  # it is not typed
        view: Any = generator.create_view(callback, method)
        view.request = spectacular_settings.GET_MOCK_REQUEST(method, "/", view, None)
        # None for the document itself, in which it is not described.
        operation = view.schema.get_operation("/", "/", "", method, generator.registry) or {}
    listed = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    return frozenset(listed | {str(api_settings.URL_FORMAT_OVERRIDE)})
