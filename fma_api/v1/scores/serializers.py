"""Scores on the wire."""

from typing import Any

from rest_framework import serializers

from fma_api.v1.ids import MAX_ID
from fma_django.models import ClientAggregateScore


class NewScoreSerializer(serializers.Serializer[Any]):
    aggregate = serializers.IntegerField(min_value=1, max_value=MAX_ID)
    client = serializers.CharField(required=False, allow_null=True, max_length=64)
    validation_results = serializers.JSONField()


class ScoreSerializer(serializers.ModelSerializer[ClientAggregateScore]):
    class Meta:
        model = ClientAggregateScore
        fields = ("id", "aggregate", "client", "validation_results", "created_on")
        read_only_fields = fields
