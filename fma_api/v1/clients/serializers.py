"""Clients and their participation, as the owners of the models that they train see them."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fma_api.v1.reports.serializers import StoredTelemetrySerializer, StrictSerializer
from fma_django.clients.keys import KeptCertificate, kept_certificate
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


class CertificateSerializer(serializers.Serializer[KeptCertificate]):
    """The certificate of a client's key."""

    organisation = serializers.CharField(
        allow_null=True, help_text="The one whose key signed it; null when that key is gone from this server."
    )
    label = serializers.CharField(help_text="As the organisation calls the client.")  # type: ignore[assignment]
    issuer = serializers.CharField(help_text="The fingerprint of the key that signed it.")
    not_before = serializers.DateTimeField()
    not_after = serializers.DateTimeField()
    state = serializers.CharField(
        help_text="`valid`, or what is wrong: `expired`, `issuer expired`, `issuer revoked`, `issuer unknown`, "
        "`of another organisation`."
    )


class KeySerializer(serializers.Serializer[Client]):
    """The key of a client."""

    public_key = serializers.CharField()
    fingerprint = serializers.CharField()
    added_on = serializers.DateTimeField(source="key_added_on")
    certificate = serializers.SerializerMethodField(help_text="null without one.")

    @extend_schema_field(CertificateSerializer(allow_null=True))
    def get_certificate(self, client: Client) -> Any:
        certificate = kept_certificate(client)
        return None if certificate is None else CertificateSerializer(certificate).data


class NewKeySerializer(StrictSerializer):
    """A key as its client sends it."""

    public_key = serializers.CharField(help_text="Ed25519, in 64 hexadecimal digits.")
    key_proof = serializers.CharField(help_text="In 128 hexadecimal digits.")
    certificate = serializers.JSONField(
        required=False, allow_null=True, help_text="The certificate of the client's organisation for the key."
    )


class ReplacingKeySerializer(NewKeySerializer):
    """A key as it is in the request file of its client."""

    format = serializers.IntegerField(min_value=1, max_value=1, required=False)


class ClientSerializer(serializers.ModelSerializer[Client]):
    organisation = serializers.CharField(source="organisation.name", allow_null=True, default=None)
    tags = TagsField()
    models = ModelsField(
        source="federated_models", help_text="Models of the caller that it is registered with."
    )
    telemetry = StoredTelemetrySerializer(
        source="latest_telemetry", allow_null=True, help_text="Its newest report; null before the first."
    )

    key = serializers.SerializerMethodField(help_text="null without one.")

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
            "key",
        )
        read_only_fields = fields

    @extend_schema_field(KeySerializer(allow_null=True))
    def get_key(self, client: Client) -> Any:
        return None if client.public_key is None else KeySerializer(client).data


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
