"""The caller and its token on the wire."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers


class TokenSerializer(serializers.Serializer[None]):
    token = serializers.CharField()


class PlaceSerializer(serializers.Serializer[Any]):
    """An organisation that a user belongs to."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    role = serializers.CharField(allow_null=True)


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "string", "format": "uuid"}]})
class CallerId(serializers.Field):  # type: ignore[type-arg]
    pass


class MeSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(choices=["user", "client"])
    id = CallerId(help_text="A user's number, or a client's public id.")
    username = serializers.CharField(allow_null=True)
    is_staff = serializers.BooleanField(help_text="Whether the caller may use the admin site.")
    roles = serializers.ListField(
        child=serializers.CharField(), help_text="The roles of a user for the whole installation."
    )
    organisations = PlaceSerializer(many=True, help_text="The organisations of a user, with the role there.")
    models = serializers.ListField(
        child=serializers.IntegerField(),
        help_text="The models that a user owns, or a client is registered with.",
    )
    rights = serializers.ListField(child=serializers.CharField())
