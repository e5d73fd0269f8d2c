"""The OpenAPI document and its page. They are given to whoever asks, whatever `Accept` says; errors are problems."""

from functools import lru_cache
from typing import Any

from django.http import HttpResponse
from django.urls import get_script_prefix
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
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
    def _get_schema_response(self, request: Any) -> HttpResponse:
        renderer: BaseRenderer = request.accepted_renderer
        with DESCRIBING:
            body = _document(type(renderer), get_script_prefix())  # type: ignore[arg-type]  # a class has a hash
        charset = f"; charset={renderer.charset}" if renderer.charset else ""
        answer = HttpResponse(body, content_type=renderer.media_type + charset)
        filename = self._get_filename(request, None)  # type: ignore[no-untyped-call]
        answer["Content-Disposition"] = f'inline; filename="{filename}"'
        return answer


# Anybody may ask for the document, and making it takes 0.4 to 0.9 seconds. It is the same for all callers. The prefix
# can come from a header: hence the limit.
@lru_cache(maxsize=16)
def _document(renderer: type[BaseRenderer], prefix: str) -> bytes | str:
    """The OpenAPI document in one form. prefix: the script's prefix of this request, which name_the_prefix reads."""
    document = SchemaView.generator_class().get_schema(public=True)  # type: ignore[no-untyped-call]
    return renderer().render(document, renderer.media_type, {})


class DocsView(_Shown, SpectacularSwaggerSplitView):
    """The page, and with `?script` its script: the browser is told to run none inside of pages."""

    metadata_class = None  # a page has nothing to say to OPTIONS: 405
