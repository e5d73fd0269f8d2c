"""What is asked in the life of an experiment, and the history of its configuration."""

from typing import Any

from rest_framework import serializers

from fma_django.record.queries.configurations import VersionWithChanges

MAX_ID = 2**63 - 1


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
        help_text="What the clone begins with; by default the initial model.",
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
        child=ChangeSerializer(), help_text="What is different from the version before, by field."
    )
