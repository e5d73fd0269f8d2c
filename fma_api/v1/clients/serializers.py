"""Clients and their participation, as the owners of the models that they train see them."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fma_api.v1.reports.serializers import StoredTelemetrySerializer, StrictSerializer
from fma_django.clients.labels import MAX_TAGS
from fma_django.models import Client


@extend_schema_field(serializers.ListField(child=serializers.CharField()))
class TagsField(serializers.Field):  # type: ignore[type-arg]
    """Tags by their names, in order."""

    def to_representation(self, value: Any) -> list[str]:
        return sorted(tag.name for tag in value.all())


@extend_schema_field(serializers.ListField(child=serializers.IntegerField()))
class ModelsField(serializers.Field):  # type: ignore[type-arg]
    def to_representation(self, value: Any) -> list[int]:
        return [federated_model.pk for federated_model in value.all()]


class ClientSerializer(serializers.ModelSerializer[Client]):
    organisation = serializers.CharField(source="organisation.name", allow_null=True, default=None)
    tags = TagsField()
    models = ModelsField(
        source="federated_models", help_text="Models of the caller that it is registered with."
    )
    telemetry = StoredTelemetrySerializer(
        source="latest_telemetry", allow_null=True, help_text="Its newest report; null before the first."
    )

    class Meta:
        model = Client
        fields = (
            "id",
            "name",
            "organisation",
            "tags",
            "models",
            "is_active",
            "awaits_approval",
            "last_seen_on",
            "created_on",
            "telemetry",
        )
        read_only_fields = fields


class ClientChangesSerializer(StrictSerializer):
    """Changes that staff may make to a client."""

    name = serializers.CharField(max_length=255, required=False, allow_blank=True)
    organisation = serializers.CharField(
        max_length=255, required=False, allow_null=True, help_text="Its name; it must be there."
    )
    tags = serializers.ListField(
        child=serializers.CharField(max_length=64), required=False, max_length=MAX_TAGS
    )
    is_active = serializers.BooleanField(
        required=False,
        help_text="true approves a client that waits for it; false refuses or revokes it, for good.",
    )


class SecondsPerRoundSerializer(serializers.Serializer[Any]):
    mean = serializers.FloatField()
    min = serializers.FloatField()
    max = serializers.FloatField()
    p5 = serializers.FloatField()
    p50 = serializers.FloatField()
    p95 = serializers.FloatField()
    count = serializers.IntegerField()


class ParticipationSummarySerializer(serializers.Serializer[Any]):
    """The participation of a client in the rounds of a model. asked = answered + late + failed + pending."""

    federated_model = serializers.IntegerField()
    client = serializers.UUIDField()
    asked = serializers.IntegerField(
        help_text="Rounds that it was chosen for, or joined, or sent an update to."
    )
    answered = serializers.IntegerField(help_text="Rounds among these that it answered in time.")
    late = serializers.IntegerField(help_text="Rounds that it answered after they had closed.")
    failed = serializers.IntegerField(help_text="Rounds that ended without an answer of it.")
    pending = serializers.IntegerField(help_text="Rounds that are not over yet.")
    clipped = serializers.IntegerField(help_text="Answers that the rule or a stage shortened.")
    rejected = serializers.IntegerField(help_text="Answers that the rule or a stage left out.")
    reliability = serializers.FloatField(
        allow_null=True, help_text="answered / (asked - pending); null before anything is over."
    )
    seconds = SecondsPerRoundSerializer(
        allow_null=True, help_text="From being asked to its answer; null without an answer."
    )
    sent_bytes = serializers.IntegerField(
        help_text="Bytes of all its updates, also of those that did not count."
    )
    last_asked_on = serializers.DateTimeField(allow_null=True)
    last_answered_on = serializers.DateTimeField(allow_null=True)
