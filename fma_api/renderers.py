"""Renderers of answers."""

from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework.renderers import BaseRenderer

SAFETENSORS = "application/vnd.safetensors"
CSV = "text/csv"


def dumps(value: Any) -> bytes:
    # The errors of the members of a list stand under their numbers.
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)


class OrjsonRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None
    render_style = "binary"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        return b"" if data is None else dumps(data)


class SafetensorsRenderer(OrjsonRenderer):
    """Lets `Accept: application/vnd.safetensors` choose the binary answer of a view, which streams it by itself.

    What DRF renders for such a request is JSON all the same: an error, or an answer without weights.
    """

    media_type = SAFETENSORS
    format = "safetensors"


class CsvRenderer(OrjsonRenderer):
    """Lets `Accept: text/csv` or `?format=csv` choose the table of a view, which streams it by itself."""

    media_type = CSV
    format = "csv"
