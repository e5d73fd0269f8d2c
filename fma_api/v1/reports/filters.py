"""Filters of lists of reports."""

import django_filters
from django_filters.rest_framework import FilterSet

from fma_api.v1.filters import IdFilter, MomentFilter
from fma_django.models import ClientError, ClientTelemetry


class TelemetryFilters(FilterSet):
    since = MomentFilter(field_name="created_on", lookup_expr="gte")
    until = MomentFilter(field_name="created_on", lookup_expr="lt")

    class Meta:
        model = ClientTelemetry
        fields = ("since", "until")


class ErrorFilters(TelemetryFilters):
    federated_model = IdFilter()
    tag = django_filters.CharFilter(field_name="client__tags__name", max_length=64)
    code = django_filters.CharFilter(max_length=64)

    class Meta:
        model = ClientError
        fields = ("federated_model", "tag", "code", "since", "until")
