"""The part of the OpenAPI document that all operations share: errors are problems."""

from typing import Any

from django.db.models import CharField
from django.urls import get_script_prefix
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from fma_api.problems import CONTENT_TYPE
from fma_api.renderers import SAFETENSORS

REDIRECTED = {
    "description": "The safetensors are in the store, at this address, which gets no credential of fma.",
    "headers": {"Location": {"schema": {"type": "string", "format": "uri"}, "required": True}},
}


class ProblemSerializer(serializers.Serializer[None]):
    """RFC 9457. What is wrong with a field also stands under the field's own name, as FMA's clients read it."""

    type = serializers.CharField(help_text="urn:fma:problem:<code>")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="The rule that must hold, and the value that was found.")
    code = serializers.CharField(help_text="Stable; for programs.")
    errors = serializers.DictField(  # type: ignore[assignment]
        required=False, help_text="Messages, by the name of the field."
    )


class ProblemSchema(AutoSchema):
    def _map_serializer(self, serializer: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        """Some members are there for developers alone: `Meta.for_developers` names them."""
        mapped = super()._map_serializer(serializer, direction, bypass_extensions)  # type: ignore[no-untyped-call]
        optional = getattr(getattr(serializer, "Meta", None), "for_developers", ())
        if optional and "required" in mapped:
            mapped["required"] = [name for name in mapped["required"] if name not in optional]
        return mapped

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        """An answer may have an empty text wherever its column may, and any value includes null."""
        if field.read_only and _may_be_blank(field):
            field.allow_blank = True  # DRF asks for it where it reads alone
        mapped = super()._map_serializer_field(field, direction, bypass_extensions)  # type: ignore[no-untyped-call]
        if mapped.get("oneOf") == [{}, {"type": "null"}]:
            del mapped["oneOf"]
        return mapped

    def _get_response_bodies(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(*args, **kwargs)
        for status in ("4XX", "503", "507"):
            described = self._get_response_for_code(ProblemSerializer, status, media_types=[CONTENT_TYPE])  # type: ignore[no-untyped-call]
            bodies[status] = {**described, "description": "A problem: its `code` says which."}
        if self.method == "GET" and any(SAFETENSORS in body.get("content", ()) for body in bodies.values()):
            bodies["307"] = REDIRECTED
        return bodies


def _may_be_blank(field: Any) -> bool:
    model = getattr(getattr(field.parent, "Meta", None), "model", None)
    column = None if model is None else {each.name: each for each in model._meta.fields}.get(field.source)
    return isinstance(column, CharField) and column.blank


def name_the_prefix(result: dict[str, Any], **_facts: Any) -> dict[str, Any]:
    """Say below which path the server answers, where it is not the root."""
    prefix = get_script_prefix().rstrip("/")
    return {**result, "servers": [{"url": prefix}]} if prefix else result
