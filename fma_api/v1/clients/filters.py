"""Filters of lists of clients, and of the rounds that they took part in."""

from typing import Any

import django_filters
from django.db.models import QuerySet
from django_filters.rest_framework import FilterSet
from rest_framework import serializers

from fma_api.v1.filters import IdFilter, MomentFilter
from fma_api.v1.ids import MAX_ID
from fma_django.models import Client, FederatedModel
from fma_django.record.queries.visible import visible_to


class ClientFilters(FilterSet):
    federated_model = IdFilter(method="of_model", label="Registered with this model.")
    tag = django_filters.CharFilter(field_name="tags__name", max_length=64)
    organisation = django_filters.CharFilter(field_name="organisation__name", max_length=255)
    seen_since = MomentFilter(field_name="last_seen_on", lookup_expr="gte")
    seen_before = MomentFilter(field_name="last_seen_on", lookup_expr="lt")

    class Meta:
        model = Client
        fields = (
            "federated_model",
            "tag",
            "organisation",
            "is_active",
            "awaits_approval",
            "seen_since",
            "seen_before",
        )

    def of_model(self, clients: QuerySet[Client], name: str, value: int) -> QuerySet[Client]:
        # Of a model that the caller does not see, nobody learns its clients.
        own = visible_to(self.request.user, FederatedModel.objects.filter(pk=value))
        return clients.filter(federated_models__in=own)


class ParticipationQuery(serializers.Serializer[Any]):
    """Rounds that began from `since` and before `until`."""

    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)


class ClientParticipationQuery(ParticipationQuery):
    federated_model = serializers.IntegerField(min_value=0, max_value=MAX_ID, required=False)


class ModelParticipationQuery(ParticipationQuery):
    tag = serializers.CharField(max_length=64, required=False)
    organisation = serializers.CharField(max_length=255, required=False)
