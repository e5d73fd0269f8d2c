"""How clients, and what they reported, are looked for."""

from typing import Any

import django_filters
from django.db.models import QuerySet
from django_filters.rest_framework import FilterSet
from rest_framework import serializers

from fma_api.v1.filters import IdFilter, MomentFilter
from fma_django.models import Client, ClientError, ClientTelemetry


class ClientFilters(FilterSet):
    federated_model = IdFilter(method="of_model", label="Registered with this model.")
    tag = django_filters.CharFilter(field_name="tags__name", max_length=64)
    organisation = django_filters.CharFilter(field_name="organisation__name", max_length=255)
    seen_since = MomentFilter(field_name="last_seen_on", lookup_expr="gte")
    seen_before = MomentFilter(field_name="last_seen_on", lookup_expr="lt")

    class Meta:
        model = Client
        fields = ("federated_model", "tag", "organisation", "is_active", "seen_since", "seen_before")

    def of_model(self, found: QuerySet[Client], name: str, value: int) -> QuerySet[Client]:
        return found.filter(federated_models=value)


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


class ParticipationQuery(serializers.Serializer[Any]):
    """Rounds that began from `since` and before `until`."""

    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)


class ClientParticipationQuery(ParticipationQuery):
    federated_model = serializers.IntegerField(min_value=0, max_value=2**63 - 1, required=False)


class ModelParticipationQuery(ParticipationQuery):
    tag = serializers.CharField(max_length=64, required=False)
    organisation = serializers.CharField(max_length=255, required=False)
