"""The caller and its token on the wire."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.authtoken.serializers import AuthTokenSerializer

from fma_api.v1.reports.serializers import StrictSerializer
from fma_django.models import ApiToken, FederatedModel
from fma_django.models.api_token import TokenScope


class LoginSerializer(AuthTokenSerializer):
    code = serializers.CharField(
        required=False,
        max_length=32,
        write_only=True,
        help_text="A code of the second factor, for a user who has one: of the app, or for recovery.",
    )


class TokenSerializer(serializers.Serializer[None]):
    token = serializers.CharField()


class ApiTokenSerializer(serializers.ModelSerializer[ApiToken]):
    scope = serializers.ChoiceField(choices=TokenScope.values)

    class Meta:
        model = ApiToken
        fields = (
            "id",
            "user",
            "name",
            "scope",
            "federated_model",
            "expires_on",
            "last_used_on",
            "created_on",
        )
        read_only_fields = fields


class MadeTokenSerializer(ApiTokenSerializer):
    """A new token."""

    token = serializers.CharField(help_text="The secret. It is shown here only; keep it.")

    class Meta(ApiTokenSerializer.Meta):
        fields = (*ApiTokenSerializer.Meta.fields, "token")  # type: ignore[assignment]


class NewTokenSerializer(StrictSerializer):
    """The name and the limits of a token."""

    name = serializers.CharField(max_length=100)
    scope = serializers.ChoiceField(
        choices=TokenScope.values,
        help_text="read: safe methods; write: all but users, roles, organisations and tokens; admin: everything that "
        "the user may.",
    )
    federated_model = serializers.PrimaryKeyRelatedField(
        queryset=FederatedModel.objects.none(),
        required=False,
        allow_null=True,
        help_text="The only model that the token reaches.",
    )
    expires_on = serializers.DateTimeField(
        required=False, allow_null=True, help_text="By default the token works until it is revoked."
    )

    def get_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().get_fields()
        fields["federated_model"].queryset = self.context.get("models", FederatedModel.objects.none())
        return fields


class PlaceSerializer(serializers.Serializer[Any]):
    """An organisation that a user belongs to."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    role = serializers.CharField(allow_null=True)


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "string", "format": "uuid"}]})
class CallerId(serializers.Field):  # type: ignore[type-arg]
    pass


class CallerTokenSerializer(serializers.Serializer[ApiToken]):
    """The limits of the request's token, which narrow the rights of its user."""

    name = serializers.CharField()
    scope = serializers.ChoiceField(choices=TokenScope.values)
    federated_model = serializers.IntegerField(source="federated_model_id", allow_null=True)
    expires_on = serializers.DateTimeField(allow_null=True)


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
    token = CallerTokenSerializer(allow_null=True, help_text="The token of the request; null without one.")
