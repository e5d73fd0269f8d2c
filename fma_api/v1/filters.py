"""Filters and orders of lists."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import django_filters
from django import forms
from django.db.models import F, QuerySet
from django_filters.fields import IsoDateTimeField
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.filters import OrderingFilter
from rest_framework.request import Request

from fma_api.v1.ids import MAX_ID


class _IdField(forms.IntegerField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=0, max_value=MAX_ID, **kwargs)

    def to_python(self, value: Any) -> int | None:
        if (
            isinstance(value, str) and len(value) > 40
        ):  # Python refuses to read numbers of thousands of digits
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid")
        return super().to_python(value)


class IdFilter(django_filters.NumberFilter):
    """By the id of another row, without looking whether it exists: that would tell strangers that it does."""

    field_class = _IdField


class _MomentField(IsoDateTimeField):
    def to_python(self, value: Any) -> datetime | None:
        moment: datetime | None = super().to_python(value)
        if moment is None:
            return None
        # PostgreSQL reads no offset of more than 15:59:59; and the first day of year 1 has no yesterday.
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None


class MomentFilter(django_filters.IsoDateTimeFilter):
    """By a moment as ISO 8601 writes it, in any time zone; UTC where it names none."""

    field_class = _MomentField


class StableOrdering(OrderingFilter):
    """The same order on every database and on every page: rows without a value come last, the newest first."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        ordering: Sequence[str] | None = self.get_ordering(request, queryset, view)
        if not ordering:
            return queryset
        terms = [
            F(name[1:]).desc(nulls_last=True) if name.startswith("-") else F(name).asc(nulls_last=True)
            for name in ordering
        ]
        return queryset.order_by(*terms, "-pk")


LIST_FILTERS = (DjangoFilterBackend, StableOrdering)
