"""How the record looks on the wire, and what a request may say. Field names and types are FMA's."""

import uuid
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from django.contrib.auth.models import User
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.reverse import reverse

from fma_api.algorithms import KINDS
from fma_api.v1.callers import user_of
from fma_core.aggregation.strategy import Strategy
from fma_core.errors import FMAError
from fma_core.rounds.columns import STRATEGY_COLUMNS
from fma_django.experiments.validation import MAX_FILTERS, MAX_STAGES
from fma_django.models import (
    Client,
    ClientAggregateScore,
    FederatedModel,
    ModelAggregate,
    ModelArtifact,
    ModelUpdate,
    Round,
)
from fma_django.models.federated_model import CONFIGURATION, ModelState, UpdateKind
from fma_django.models.model_update import MAX_NUM_EXAMPLES
from fma_django.record.queries.configurations import newest_number

MAX_ID = 2**63 - 1


def strategy_of(row: FederatedModel | Round) -> Strategy | None:
    """None when one of its parts is gone, which must not make the row unreadable."""
    try:
        return row.build_strategy()
    except FMAError:
        return None


@extend_schema_field({"type": "string", "format": "uri"})
class WeightsUrl(serializers.Field):  # type: ignore[type-arg]
    """Where the weights of a row are; it answers to those who may read the row."""

    def __init__(self, view_name: str, **kwargs: Any) -> None:
        self.view_name = view_name
        super().__init__(source="*", read_only=True, **kwargs)

    def to_representation(self, value: Any) -> str | None:
        return reverse(self.view_name, args=[value.pk], request=self.context.get("request"))


@extend_schema_field({"type": "string", "format": "uri", "nullable": True})
class StateUrl(WeightsUrl):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__("model_aggregate-state", **kwargs)

    def to_representation(self, value: Any) -> str | None:
        return super().to_representation(value) if value.state_sha256 else None


@extend_schema_field(serializers.ListField(child=serializers.DictField(), max_length=MAX_STAGES))
class StagesField(serializers.JSONField):
    """A list of parts. Their number is checked before anything looks at each of them."""


@extend_schema_field(serializers.ListField(child=serializers.DictField(), max_length=MAX_FILTERS))
class FiltersField(serializers.JSONField):
    """A list of filters."""


@extend_schema_field(serializers.ListField(child=serializers.DictField()))
class OverridesField(serializers.JSONField):
    """A list of overrides."""


@extend_schema_field(serializers.ListField(child=serializers.UUIDField()))
class ClientsField(serializers.Field):  # type: ignore[type-arg]
    """Clients by their public ids, all of them found in one query."""

    def to_internal_value(self, data: Any) -> list[Client]:
        if not isinstance(data, list):
            raise serializers.ValidationError("Clients are a list of public ids.")
        ids = [self._id_of(item) for item in data]
        found = Client.objects.in_bulk(ids)
        for client_id in ids:
            if client_id not in found:
                raise serializers.ValidationError(f"There is no client {client_id}.")
        return list(found.values())

    def to_representation(self, value: Any) -> list[str]:
        return [str(client.pk) for client in value.all()]

    def _id_of(self, item: Any) -> uuid.UUID:
        try:
            return uuid.UUID(item)
        except (ValueError, TypeError, AttributeError):
            raise serializers.ValidationError(f"{item!r:.60} is not the public id of a client.") from None


class PartField(serializers.DictField):
    """A part of a strategy: its name and its parameters."""

    default_error_messages = {
        "not_a_dict": 'A part is an object with its name, such as {{"name": "fedadam"}}; found {input_type}.'
    }


class FederatedModelSerializer(serializers.ModelSerializer[FederatedModel]):
    allow_aggregation = serializers.BooleanField(default=False)
    aggregator = serializers.CharField(max_length=255)
    aggregator_params = serializers.DictField(required=False)
    stages = StagesField(required=False, help_text="What is done to the updates first; up to 16 parts.")
    optimiser = PartField(required=False, allow_null=True, help_text="The server optimiser.")
    staleness = PartField(
        required=False, allow_null=True, help_text="The discount for updates of an old base."
    )
    update_kind = serializers.ChoiceField(
        choices=UpdateKind.choices,
        required=False,
        help_text="What clients send.",
        error_messages={"invalid_choice": f"must be one of {', '.join(UpdateKind.values)}; found {{input}}."},
    )
    min_updates = serializers.SerializerMethodField(
        help_text="How many updates the strategy needs; null when one of its parts is gone."
    )
    requirement = serializers.CharField(max_length=255, allow_blank=True, allow_null=True, required=False)
    requirement_args = serializers.ListField(required=False, allow_null=True)
    developer = serializers.PrimaryKeyRelatedField(
        queryset=User.objects.all(),
        required=False,
        error_messages={
            "does_not_exist": "There is no user {pk_value}, or you may not name them: only staff may."
        },
    )
    clients = ClientsField(required=False)
    update_schema = serializers.JSONField(required=False, allow_null=True)
    client_agg_results_schema = serializers.JSONField(required=False, allow_null=True)
    furthest_base_agg = serializers.IntegerField(
        min_value=1, max_value=2147483647, required=False, allow_null=True
    )
    spec = serializers.DictField(required=False, allow_null=True)
    round_policy = serializers.DictField(
        required=False, help_text="When a round closes and when the experiment ends."
    )
    selector = PartField(required=False, help_text="By what the clients of a round are chosen.")
    eligibility = FiltersField(
        required=False, help_text="Which clients may be chosen at all; up to 16 filters."
    )
    seed = serializers.IntegerField(
        min_value=0,
        max_value=2**53 - 1,
        required=False,
        help_text="The same seed and history choose the same clients.",
    )
    client_config = serializers.DictField(required=False, help_text="What clients are told with a round.")
    client_config_overrides = OverridesField(
        required=False, help_text="What of it differs for some rounds, tags or clients."
    )
    client_config_schema = serializers.JSONField(required=False, allow_null=True)
    state = serializers.ChoiceField(choices=ModelState.choices, read_only=True)
    config_version = serializers.SerializerMethodField(
        help_text="The number of the newest version of its configuration."
    )

    class Meta:
        model = FederatedModel
        fields = (
            "id",
            "name",
            "developer",
            "clients",
            "current_artifact",
            "allow_aggregation",
            *CONFIGURATION[: len(STRATEGY_COLUMNS)],
            "min_updates",
            *CONFIGURATION[len(STRATEGY_COLUMNS) :],
            "spec",
            "weights_layout",
            "state",
            "end_reason",
            "config_version",
            "started_on",
            "ended_on",
            "created_on",
            "last_modified",
        )
        read_only_fields = (
            "current_artifact",
            "weights_layout",
            "end_reason",
            "started_on",
            "ended_on",
            "created_on",
            "last_modified",
        )

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            self._refuse_misspelt(data)
        return super().to_internal_value(data)

    def _refuse_misspelt(self, data: Mapping[str, Any]) -> None:
        # Unknown members are ignored, as FMA ignores them; but what somebody asked for must not silently be left out.
        misspelt = {
            name: [f"There is no {name!r}; did you mean {close[0]!r}?"]
            for name in data
            if name not in self.fields and (close := get_close_matches(str(name), self.fields, cutoff=0.8))
        }
        if misspelt:
            raise serializers.ValidationError(misspelt)

    def get_min_updates(self, federated_model: FederatedModel) -> int | None:
        strategy = strategy_of(federated_model)
        return None if strategy is None else strategy.min_updates

    def get_config_version(self, federated_model: FederatedModel) -> int | None:
        return newest_number(federated_model)

    def validate_requirement(self, value: str | None) -> str:
        return value or ""

    def validate_requirement_args(self, value: list[Any] | None) -> list[Any]:
        return value or []

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        request = self.context.get("request")
        caller = None if request is None else user_of(request)
        if caller is not None and not caller.is_staff:
            # Whether somebody else exists is not told: only oneself is found.
            fields["developer"].queryset = User.objects.filter(pk=caller.pk)  # type: ignore[attr-defined]
        return fields


class NewFederatedModelSerializer(FederatedModelSerializer):
    initial_model = serializers.JSONField(
        required=False, allow_null=True, write_only=True, help_text="Weights; they become artifact 1.0.0."
    )

    class Meta(FederatedModelSerializer.Meta):
        fields = (*FederatedModelSerializer.Meta.fields, "initial_model")  # type: ignore[assignment]


class RegistrationSerializer(serializers.Serializer[Any]):
    uuid = serializers.UUIDField(help_text="The client's credential. It is shown here only; keep it.")
    id = serializers.UUIDField(help_text="The client's public id.")


class ModelArtifactSerializer(serializers.ModelSerializer[ModelArtifact]):
    values = WeightsUrl("model_artifact-weights")

    class Meta:
        model = ModelArtifact
        fields = (
            "id",
            "values",
            "version",
            "aggregate",
            "federated_model",
            "sha256",
            "size_bytes",
            "created_on",
        )
        read_only_fields = fields


class ModelAggregateSerializer(serializers.ModelSerializer[ModelAggregate]):
    result = WeightsUrl("model_aggregate-weights")
    validation_score = serializers.FloatField(allow_null=True)
    state = StateUrl(
        help_text="What the strategy keeps for the next round, as safetensors; null when it keeps nothing."
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


class BoundedJSONField(serializers.JSONField):
    """JSON in a query, whose nesting nobody has bounded yet."""

    def to_internal_value(self, data: Any) -> Any:
        try:
            return super().to_internal_value(data)
        except RecursionError:
            raise serializers.ValidationError("This JSON is nested too deep.") from None


class UpdateFactsSerializer(serializers.Serializer[Any]):
    """What is said of an update, in a JSON body or in the query of a binary one."""

    federated_model = serializers.IntegerField(min_value=1, max_value=MAX_ID)
    base_aggregate = serializers.IntegerField(min_value=1, max_value=MAX_ID, required=False, allow_null=True)
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
    data = serializers.JSONField(  # type: ignore[assignment]
        help_text="Weights: an array, a list of layers, or an object of named arrays."
    )


class ClientModelUpdateSerializer(serializers.ModelSerializer[ModelUpdate]):
    """What a client sees of its own update."""

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
    """What a developer sees of an update."""

    class Meta(ClientModelUpdateSerializer.Meta):
        fields = (*ClientModelUpdateSerializer.Meta.fields, "status", "status_reason", "applied_aggregate")
        read_only_fields = fields


class NewScoreSerializer(serializers.Serializer[Any]):
    aggregate = serializers.IntegerField(min_value=1, max_value=MAX_ID)
    client = serializers.CharField(required=False, allow_null=True, max_length=64)
    validation_results = serializers.JSONField()


class ScoreSerializer(serializers.ModelSerializer[ClientAggregateScore]):
    class Meta:
        model = ClientAggregateScore
        fields = ("id", "aggregate", "client", "validation_results", "created_on")
        read_only_fields = fields


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "string", "format": "uuid"}]})
class CallerId(serializers.Field):  # type: ignore[type-arg]
    pass


class MeSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(choices=["user", "client"])
    id = CallerId(help_text="A user's number, or a client's public id.")
    username = serializers.CharField(allow_null=True)
    is_staff = serializers.BooleanField()
    models = serializers.ListField(
        child=serializers.IntegerField(),
        help_text="The models that a user owns, or a client is registered with.",
    )
    rights = serializers.ListField(child=serializers.CharField())


class GoesWithSerializer(serializers.Serializer[Any]):
    """What a model with this aggregator can have, and what it needs of each update."""

    update_kinds = serializers.ListField(child=serializers.CharField(), help_text="Of `weights` and `delta`.")
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
    source = serializers.CharField(help_text="The paper, or whose rule it is.")  # type: ignore[assignment]
    minimum = serializers.CharField(
        allow_null=True, help_text="The least number of updates, as a formula of its parameters."
    )
    parameters = serializers.DictField(
        allow_null=True, help_text="JSON Schema (draft 2020-12) of the object of parameters."
    )
    error = serializers.CharField(
        allow_null=True, help_text="Why the part cannot be used: a plugin that cannot be loaded."
    )
    goes_with = GoesWithSerializer(allow_null=True, help_text="Of aggregators; null of all others.")
    changes = Changes(allow_null=True, help_text="What a stage changes; null of all others.")


class LatestModelSerializer(serializers.Serializer[Any]):
    values = serializers.JSONField()
    aggregate = serializers.IntegerField(allow_null=True)
