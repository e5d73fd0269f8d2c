"""Fields of a model that are lists or parts."""

import uuid
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fma_api.v1.callers import user_of
from fma_django.clients.consent import attachable_by
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
        clients = self._attachable().in_bulk(ids)
        for client_id in ids:
            if client_id not in clients:
                raise serializers.ValidationError(f"There is no client {client_id}.")
        return list(clients.values())

    def to_representation(self, value: Any) -> list[str]:
        return [str(client.pk) for client in value.all()]

    def _attachable(self) -> QuerySet[Client]:
        """One that the caller may not put there is refused as one that does not exist."""
        request = self.context.get("request")
        caller = None if request is None else user_of(request)
        if caller is None:
            return Client.objects.none()
        return attachable_by(caller, getattr(self.parent, "instance", None))

    def _id_of(self, item: Any) -> uuid.UUID:
        try:
            return uuid.UUID(item)
        except (ValueError, TypeError, AttributeError):
            raise serializers.ValidationError(f"{item!r:.60} is not the public id of a client.") from None
