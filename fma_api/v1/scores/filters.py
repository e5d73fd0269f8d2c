"""Filters of lists of scores."""

import django_filters
from django_filters.rest_framework import FilterSet

from fma_api.v1.filters import IdFilter
from fma_django.models import ClientAggregateScore


class ClientAggregateScoreFilters(FilterSet):
    aggregate = IdFilter()
    client = django_filters.UUIDFilter()

    class Meta:
        model = ClientAggregateScore
        fields = ("aggregate", "client")
