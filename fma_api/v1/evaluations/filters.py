"""Filters of lists of evaluations."""

from django_filters.rest_framework import FilterSet

from fma_api.v1.filters import IdFilter
from fma_django.models import EvaluationRound


class EvaluationFilters(FilterSet):
    federated_model = IdFilter()

    class Meta:
        model = EvaluationRound
        fields = ("federated_model", "state")
