"""Weights as a member of a JSON body."""

from typing import Any

from rest_framework import serializers

from fma_django.record.json_process import HeldJson


class WeightsField(serializers.JSONField):
    """Any JSON, also that which another process holds."""

    def to_internal_value(self, data: Any) -> Any:
        return data if isinstance(data, HeldJson) else super().to_internal_value(data)
