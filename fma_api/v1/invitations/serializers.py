"""Invitations on the wire."""

from typing import Any

from rest_framework import serializers

from fma_api.v1.clients.serializers import TagsField
from fma_api.v1.ids import MAX_ID
from fma_api.v1.reports.serializers import StrictSerializer
from fma_django.clients.invitations import MOST_USES
from fma_django.clients.labels import MAX_TAGS
from fma_django.models import Invitation

MAX_MODELS = 100


class InvitationSerializer(serializers.ModelSerializer[Invitation]):
    models: Any = serializers.PrimaryKeyRelatedField(source="federated_models", many=True, read_only=True)
    tags = TagsField()
    created_by = serializers.CharField(
        source="created_by.username",
        allow_null=True,
        default=None,
        help_text="A username; null for the command line.",
    )

    class Meta:
        model = Invitation
        fields: tuple[str, ...] = (
            "id",
            "models",
            "organisation",
            "tags",
            "uses",
            "uses_left",
            "created_by",
            "created_on",
            "expires_on",
            "revoked_on",
        )
        read_only_fields = fields


class InvitationFileSerializer(serializers.Serializer[Any]):
    """All that a client needs to register."""

    format = serializers.IntegerField()
    server = serializers.URLField()
    models = serializers.ListField(child=serializers.IntegerField())
    token = serializers.CharField()


class MadeInvitationSerializer(InvitationSerializer):
    """The answer to whoever made it: the only one with the token."""

    token = serializers.CharField(help_text="Shown here only. Clients send it in the header FMA-Invitation.")
    link = serializers.CharField(help_text="The same as a link; what follows # is not sent to any server.")
    file = InvitationFileSerializer(help_text="The same as a file for `Client(invitation=…)`.")

    class Meta(InvitationSerializer.Meta):
        fields = (*InvitationSerializer.Meta.fields, "token", "link", "file")
        read_only_fields = fields


class NewInvitationSerializer(StrictSerializer):
    models = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=MAX_ID),
        min_length=1,
        max_length=MAX_MODELS,
        help_text="The models that its clients may train.",
    )
    uses = serializers.IntegerField(
        min_value=1, max_value=MOST_USES, required=False, help_text="The number of clients; by default 1."
    )
    organisation = serializers.IntegerField(
        min_value=1,
        max_value=MAX_ID,
        required=False,
        allow_null=True,
        help_text="The organisation that its clients belong to; by default the one that the caller may invite to.",
    )
    tags = serializers.ListField(
        child=serializers.CharField(max_length=64),
        required=False,
        max_length=MAX_TAGS,
        help_text="The tags of its clients.",
    )
    expires_on = serializers.DateTimeField(required=False, help_text="By default in 14 days.")
