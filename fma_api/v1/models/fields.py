"""Fields of a model that are lists or parts."""

import uuid
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fma_django.accounts.grants import only_model
from fma_django.experiments.validation import MAX_FILTERS, MAX_STAGES
from fma_django.models import Client


@extend_schema_field(serializers.ListField(child=serializers.DictField(), max_length=MAX_STAGES))
class StagesField(serializers.JSONField):
    """A list of parts. Their number is checked before anything looks at each of them."""


@extend_schema_field(serializers.ListField(child=serializers.DictField(), max_length=MAX_FILTERS))
class FiltersField(serializers.JSONField):
    """A list of filters."""


@extend_schema_field(serializers.ListField(child=serializers.DictField()))
class OverridesField(serializers.JSONField):
    """A list of overrides."""


class PartField(serializers.DictField):
    """A part of a strategy: its name and its parameters."""

    default_error_messages = {
        "not_a_dict": 'A part is an object with its name, such as {{"name": "fedadam"}}; found {input_type}.'
    }


@extend_schema_field(serializers.ListField(child=serializers.UUIDField()))
class ClientsField(serializers.Field):  # type: ignore[type-arg]
    """Clients by their public ids, read in one query."""

    def to_internal_value(self, data: Any) -> list[Client]:
        if not isinstance(data, list):
            raise serializers.ValidationError("Clients are a list of public ids.")
        ids = [self._id_of(item) for item in data]
        clients = self._known().in_bulk(ids)
        for client_id in ids:
            if client_id not in clients:
                raise serializers.ValidationError(f"There is no client {client_id}.")
        return list(clients.values())

    def _known(self) -> QuerySet[Client]:
        request = self.context.get("request")
        only = None if request is None else only_model(request.user)
        # A token of one model takes no further clients into it: it would see their reports then.
        return Client.objects.all() if only is None else Client.objects.filter(federated_models=only)

    def to_representation(self, value: Any) -> list[str]:
        return [str(client.pk) for client in value.all()]

    def _id_of(self, item: Any) -> uuid.UUID:
        try:
            return uuid.UUID(item)
        except (ValueError, TypeError, AttributeError):
            raise serializers.ValidationError(f"{item!r:.60} is not the public id of a client.") from None
