"""Filters of lists of updates."""

from django_filters.rest_framework import FilterSet, UUIDFilter

from fma_api.v1.filters import IdFilter
from fma_django.models import ModelUpdate


class ModelUpdateFilters(FilterSet):
    federated_model = IdFilter()
    client = UUIDFilter()

    class Meta:
        model = ModelUpdate
        fields = ("federated_model", "status", "verdict")
