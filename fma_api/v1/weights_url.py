"""The field that says where the weights of a row are."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse


@extend_schema_field({"type": "string", "format": "uri"})
class WeightsUrl(serializers.Field):  # type: ignore[type-arg]
    """The URL of the weights of a row; it answers to callers that may read the row."""

    def __init__(self, view_name: str, **kwargs: Any) -> None:
        self.view_name = view_name
        super().__init__(source="*", read_only=True, **kwargs)

    def to_representation(self, value: Any) -> str | None:
        return reverse(self.view_name, args=[value.pk], request=self.context.get("request"))
