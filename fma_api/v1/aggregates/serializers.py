"""Aggregates on the wire."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fma_api.v1.weights_url import WeightsUrl
from fma_django.models import ModelAggregate


@extend_schema_field({"type": "string", "format": "uri", "nullable": True})
class StateUrl(WeightsUrl):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("model_aggregate-state", **kwargs)

    def to_representation(self, value: Any) -> str | None:
        return super().to_representation(value) if value.state_sha256 else None


class ModelAggregateSerializer(serializers.ModelSerializer[ModelAggregate]):
    result = WeightsUrl("model_aggregate-weights")
    validation_score = serializers.FloatField(allow_null=True)
    state = StateUrl(
        help_text="The state of the strategy for the next round, as safetensors; null when there is none."
    )

    class Meta:
        model = ModelAggregate
        fields = (
            "id",
            "federated_model",
            "parent",
            "result",
            "validation_score",
            "sha256",
            "size_bytes",
            "state",
            "is_abandoned",
            "created_on",
        )
        read_only_fields = tuple(name for name in fields if name != "validation_score")


class ModelAggregateWithWeightsSerializer(ModelAggregateSerializer):
    """One aggregate, whose `result` is the weights themselves, as FMA's clients expect."""

    result = serializers.JSONField(read_only=True)  # type: ignore[assignment]


class VersionSerializer(serializers.Serializer[Any]):
    version = serializers.CharField(max_length=255)
