"""Filters of lists of aggregates."""

from django_filters.rest_framework import FilterSet

from fma_api.v1.filters import IdFilter
from fma_django.models import ModelAggregate


class ModelAggregateFilters(FilterSet):
    federated_model = IdFilter()

    class Meta:
        model = ModelAggregate
        fields = ("federated_model",)
