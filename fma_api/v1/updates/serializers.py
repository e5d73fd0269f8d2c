"""Updates on the wire, and their facts in a request."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from fma_api.v1.ids import MAX_ID
from fma_api.v1.unknown_names import refuse_misspelt
from fma_api.v1.weights_field import WeightsField
from fma_api.v1.weights_url import WeightsUrl
from fma_core.aggregation.aggregators.aggregator import MAX_NUM_EXAMPLES
from fma_django.models import ModelUpdate
from fma_django.models.update_signature import signer_of


class BoundedJSONField(serializers.JSONField):
    """JSON in a query, whose nesting nobody has bounded yet."""

    def to_internal_value(self, data: Any) -> Any:
        try:
            return super().to_internal_value(data)
        except RecursionError:
            raise serializers.ValidationError("This JSON is nested too deep.") from None


class UpdateFactsSerializer(serializers.Serializer[Any]):
    """The facts of an update, in a JSON body or in the query of a binary one."""

    federated_model = serializers.IntegerField(min_value=1, max_value=MAX_ID)
    base_aggregate = serializers.IntegerField(
        min_value=0,
        max_value=MAX_ID,
        required=False,
        allow_null=True,
        help_text="The aggregate that it was trained from; 0 for the initial model.",
    )
    num_examples = serializers.IntegerField(
        min_value=1, max_value=MAX_NUM_EXAMPLES, required=False, default=1
    )
    metrics = BoundedJSONField(required=False, allow_null=True)
    client = serializers.UUIDField(
        required=False, allow_null=True, help_text="The client's public id; for developers only."
    )

    def validate_metrics(self, value: Any) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise serializers.ValidationError("Metrics are a JSON object.")
        return value


class NewModelUpdateSerializer(UpdateFactsSerializer):
    # FMA's name; Serializer has a property of that name, which an input never needs.
    data = WeightsField(  # type: ignore[assignment]
        help_text="Weights: an array, a list of layers, or an object of named arrays."
    )

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            refuse_misspelt(data, self.fields)
        return super().to_internal_value(data)


class ClientModelUpdateSerializer(serializers.ModelSerializer[ModelUpdate]):
    """An update as its client sees it."""

    data = WeightsUrl("model_update-weights")  # type: ignore[assignment]
    round = serializers.IntegerField(source="round.number", read_only=True)

    class Meta:
        model = ModelUpdate
        fields: tuple[str, ...] = (
            "id",
            "client",
            "federated_model",
            "round",
            "data",
            "base_aggregate",
            "num_examples",
            "metrics",
            "sha256",
            "size_bytes",
            "created_on",
        )
        read_only_fields = fields


class ModelUpdateSerializer(ClientModelUpdateSerializer):
    """An update as a developer sees it."""

    signed_by = serializers.SerializerMethodField(
        help_text="The fingerprint of the client's key that signed it; null when it is not signed."
    )

    class Meta(ClientModelUpdateSerializer.Meta):
        for_developers = (
            "status",
            "status_reason",
            "applied_aggregate",
            "verdict",
            "verdict_by",
            "weight_used",
            "step_norm",
            "distance",
            "signed_by",
        )
        fields = (*ClientModelUpdateSerializer.Meta.fields, *for_developers)
        read_only_fields = fields

    def get_signed_by(self, update: ModelUpdate) -> str | None:
        return signer_of(update)
