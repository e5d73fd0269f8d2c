"""Filters of lists of models."""

from django_filters.rest_framework import FilterSet

from fma_django.models import FederatedModel


class FederatedModelFilters(FilterSet):
    class Meta:
        model = FederatedModel
        fields = ("allow_aggregation",)
