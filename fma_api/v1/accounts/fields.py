"""Roles on the wire: by their names, which people read and write."""

from typing import Any

from django.contrib.auth.models import Group
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

LONGEST_ROLE = 150
"""As long as the name of a group may be."""


@extend_schema_field(serializers.CharField(max_length=LONGEST_ROLE))
class RoleField(serializers.SlugRelatedField[Group]):
    """A role by its name."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("queryset", Group.objects.all())
        super().__init__(
            slug_field="name",
            error_messages={"does_not_exist": "There is no role {value!r}."},
            **options,
        )

    def to_internal_value(self, data: Any) -> Group:
        if not isinstance(data, str) or len(data) > LONGEST_ROLE or "\x00" in data:
            self.fail("invalid")
        return super().to_internal_value(data)
