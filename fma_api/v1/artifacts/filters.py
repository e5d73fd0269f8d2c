"""Filters of lists of artifacts."""

from django_filters.rest_framework import FilterSet

from fma_api.v1.filters import IdFilter
from fma_django.models import ModelArtifact


class ModelArtifactFilters(FilterSet):
    federated_model = IdFilter()

    class Meta:
        model = ModelArtifact
        fields = ("federated_model", "version")
