"""Artifacts on the wire."""

from rest_framework import serializers

from fma_api.v1.weights_url import WeightsUrl
from fma_django.models import ModelArtifact


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
