"""Models on the wire, and the requests about them. Names and types of FMA's fields are FMA's."""

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from rest_framework import serializers

from fma_api.v1.callers import organisations_shown, user_of
from fma_api.v1.ids import MAX_ID
from fma_api.v1.models.fields import ClientsField, FiltersField, OverridesField, PartField, StagesField
from fma_api.v1.unknown_names import refuse_misspelt
from fma_api.v1.weights_field import WeightsField
from fma_core.errors import FMAError
from fma_core.rounds.columns import MAX_SEED, STRATEGY_COLUMNS
from fma_django.accounts.grants import may
from fma_django.accounts.roles import CHANGE_EXPERIMENTS
from fma_django.models import FederatedModel
from fma_django.models.federated_model import CONFIGURATION, ModelState, UpdateKind
from fma_django.record.queries.configurations import VersionWithChanges, newest_number

HELP_TEXTS = {field.name: field.help_text for field in FederatedModel._meta.concrete_fields}


class RequirementArgs(serializers.ListField):
    """Null for a requirement without arguments, as FMA shows it."""

    def to_representation(self, data: list[Any]) -> list[Any] | None:  # type: ignore[override]
        return super().to_representation(data) if data else None


class FederatedModelSerializer(serializers.ModelSerializer[FederatedModel]):
    allow_aggregation = serializers.BooleanField(default=False)
    aggregator = serializers.CharField(max_length=255)
    aggregator_params = serializers.DictField(required=False)
    stages = StagesField(required=False)
    optimiser = PartField(required=False, allow_null=True)
    staleness = PartField(required=False, allow_null=True)
    update_kind = serializers.ChoiceField(
        choices=UpdateKind.choices,
        required=False,
        error_messages={"invalid_choice": f"must be one of {', '.join(UpdateKind.values)}; found {{input}}."},
    )
    array_policies = serializers.DictField(required=False)
    min_updates = serializers.SerializerMethodField(
        help_text="The number of updates that the strategy needs; null when one of its parts is gone."
    )
    requirement = serializers.CharField(max_length=255, allow_blank=True, allow_null=True, required=False)
    requirement_args = RequirementArgs(required=False, allow_null=True)
    developer = serializers.PrimaryKeyRelatedField(
        queryset=User.objects.all(),
        required=False,
        error_messages={"does_not_exist": "There is no user {pk_value}, or you may not name them."},
    )
    clients = ClientsField(required=False)
    update_schema = serializers.JSONField(required=False, allow_null=True)
    client_agg_results_schema = serializers.JSONField(required=False, allow_null=True)
    furthest_base_agg = serializers.IntegerField(
        min_value=1, max_value=2147483647, required=False, allow_null=True
    )
    spec = serializers.DictField(required=False, allow_null=True)
    round_policy = serializers.DictField(required=False)
    selector = PartField(required=False)
    eligibility = FiltersField(required=False)
    seed = serializers.IntegerField(min_value=0, max_value=MAX_SEED, required=False)
    client_config = serializers.DictField(required=False)
    client_config_overrides = OverridesField(required=False)
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
            refuse_misspelt(data, self.fields)
        return super().to_internal_value(data)

    def to_representation(self, instance: FederatedModel) -> dict[str, Any]:
        members = super().to_representation(instance)
        shown = organisations_shown(self.context["request"], instance)
        if shown is not None:
            own = (client for client in instance.clients.all() if client.organisation_id in shown)
            members["clients"] = [str(client.pk) for client in own]
            overrides = instance.client_config_overrides
            members["client_config_overrides"] = [each for each in overrides if "clients" not in each]
        return members

    def get_min_updates(self, federated_model: FederatedModel) -> int | None:
        try:
            return federated_model.build_strategy().min_updates
        except FMAError:  # a plugin is gone, which must not make the row unreadable
            return None

    def get_config_version(self, federated_model: FederatedModel) -> int | None:
        return newest_number(federated_model)

    def validate_requirement(self, value: str | None) -> str:
        return value or ""

    def validate_requirement_args(self, value: list[Any] | None) -> list[Any]:
        return value or []

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        for column in CONFIGURATION:
            fields[column].help_text = HELP_TEXTS[column]
        request = self.context.get("request")
        caller = None if request is None else user_of(request)
        if caller is not None and not may(caller, CHANGE_EXPERIMENTS):
            # Whether somebody else exists is not told: only oneself is found.
            fields["developer"].queryset = User.objects.filter(pk=caller.pk)  # type: ignore[attr-defined]
        return fields


class NewFederatedModelSerializer(FederatedModelSerializer):
    initial_model = WeightsField(
        required=False, allow_null=True, write_only=True, help_text="Weights; they become artifact 1.0.0."
    )

    class Meta(FederatedModelSerializer.Meta):
        fields = (*FederatedModelSerializer.Meta.fields, "initial_model")


class NewRegistrationSerializer(serializers.Serializer[Any]):
    organisation = serializers.CharField(
        max_length=255,
        required=False,
        allow_blank=True,
        help_text="With FMA_REGISTRATION=approval, the name of the client's organisation, whose admin may approve it.",
    )
    public_key = serializers.CharField(
        required=False,
        help_text="The client's Ed25519 key, in 64 hexadecimal digits; needs an Idempotency-Key.",
    )
    key_proof = serializers.CharField(
        required=False, help_text="The proof that the client has the private key, in 128 hexadecimal digits."
    )
    certificate = serializers.JSONField(
        required=False, help_text="The certificate of the client's organisation for the key."
    )


class RegistrationSerializer(serializers.Serializer[Any]):
    uuid = serializers.UUIDField(help_text="The client's credential. It is shown here only; keep it.")
    id = serializers.UUIDField(help_text="The client's public id.")
    public_key = serializers.CharField(allow_null=True, help_text="The client's key; null without one.")


class LatestModelSerializer(serializers.Serializer[Any]):
    values = serializers.JSONField()
    aggregate = serializers.IntegerField(allow_null=True)


class RewindSerializer(serializers.Serializer[Any]):
    aggregate = serializers.IntegerField(
        min_value=1, max_value=MAX_ID, help_text="The aggregate of the model to go on from."
    )


class CloneSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=255, required=False, help_text="By default the name and (clone).")
    aggregate = serializers.IntegerField(
        min_value=1,
        max_value=MAX_ID,
        required=False,
        allow_null=True,
        help_text="The aggregate that the clone begins with; by default the initial model.",
    )
    clients = serializers.BooleanField(
        required=False, default=False, help_text="Whether the same clients are registered with it."
    )


class ChangeSerializer(serializers.Serializer[Any]):
    before = serializers.JSONField()
    after = serializers.JSONField()


class ConfigVersionSerializer(serializers.Serializer[VersionWithChanges]):
    """One version of a model's configuration."""

    number = serializers.IntegerField(source="version.number")
    changed_by = serializers.CharField(
        source="version.changed_by.username",
        default=None,
        allow_null=True,
        help_text="A username; null for what the server did.",
    )
    changed_on = serializers.DateTimeField(source="version.changed_on")
    configuration = serializers.DictField(source="version.configuration")
    changes = serializers.DictField(
        child=ChangeSerializer(), help_text="Differences from the version before, by field."
    )
