"""The OpenAPI document and its page. They are given to whoever asks, whatever `Accept` says; errors are problems."""

from typing import Any

from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.views import APIView

from fma_api.problems import rendered
from fma_api.v1.known_queries import DESCRIBING, KnownQueries


class _First(DefaultContentNegotiation):
    """Choose the first form where none of those that are asked for is there (RFC 9110, section 12.5.1)."""

    def select_renderer(self, request: Any, renderers: Any, format_suffix: Any = None) -> Any:
        try:
            return super().select_renderer(request, renderers, format_suffix)
        except NotAcceptable:
            return renderers[0], renderers[0].media_type


class _Shown(APIView):
    content_negotiation_class = _First

    def handle_exception(self, exc: Exception) -> Any:
        # The forms of this view are those of its document: a problem in one of them would be YAML, or a page.
        return rendered(super().handle_exception(exc))


class SchemaView(_Shown, KnownQueries, SpectacularAPIView):
    def _get_schema_response(self, request: Any) -> Any:
        with DESCRIBING:
            return super()._get_schema_response(request)  # type: ignore[no-untyped-call]


class DocsView(_Shown, SpectacularSwaggerSplitView):
    """The page, and with `?script` its script: the browser is told to run none inside of pages."""

    metadata_class = None  # a page has nothing to say to OPTIONS: 405
