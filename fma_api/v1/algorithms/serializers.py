"""Parts on the wire."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fma_api.algorithms import KINDS


class KindSerializer(serializers.Serializer[None]):
    kind = serializers.ChoiceField(choices=list(KINDS), required=False)


class GoesWithSerializer(serializers.Serializer[Any]):
    """The parts and updates that go with this aggregator."""

    update_kinds = serializers.ListField(
        child=serializers.CharField(), help_text="`weights`, `delta` or both."
    )
    required_metrics = serializers.ListField(child=serializers.CharField())
    payloads = serializers.ListField(
        child=serializers.CharField(), help_text="Arrays `<payload>/<array>` beside the weights."
    )
    takes_staleness = serializers.BooleanField()
    takes_optimiser = serializers.BooleanField()
    takes_clipped_rows = serializers.BooleanField(
        help_text="Whether any stages but those of arrays are taken."
    )
    takes_mixed_rows = serializers.BooleanField(help_text="Whether stages that mix rows are taken too.")


@extend_schema_field({"enum": list(KINDS), "type": "string"})
class PartKind(serializers.CharField):
    pass


@extend_schema_field({"enum": ["arrays", "clipped_rows", "mixed_rows", None], "type": ["string", "null"]})
class Changes(serializers.CharField):
    pass


class AlgorithmSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    kind = PartKind()
    description = serializers.CharField()
    # Serializer fields have an attribute of that name, which an output never needs.
    source = serializers.CharField(help_text="The paper, or the author of the rule.")  # type: ignore[assignment]
    minimum = serializers.CharField(
        allow_null=True, help_text="The least number of updates, as a formula of its parameters."
    )
    parameters = serializers.DictField(
        allow_null=True, help_text="JSON Schema (draft 2020-12) of the object of parameters."
    )
    error = serializers.CharField(
        allow_null=True, help_text="The reason why the part cannot be used: a plugin that cannot be loaded."
    )
    goes_with = GoesWithSerializer(allow_null=True, help_text="For aggregators; null for other parts.")
    changes = Changes(allow_null=True, help_text="The things that a stage changes; null for other parts.")
