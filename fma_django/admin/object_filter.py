"""A list filter by a related row that stays short when there are thousands of them."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest

NEWEST = 10


def object_filter(
    related: type[Model], parameter: str, *, path: str = "", title: str = "", newest: int = NEWEST
) -> type[SimpleListFilter]:
    """Offers the newest rows of `related`, and the one that a link chose; with newest=0, only that one.

    parameter: the name in the URL; also the lookup, unless `path` gives another one.
    """

    class ObjectFilter(SimpleListFilter):
        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            rows = related._default_manager.order_by("-pk")[:newest] if newest else []
            offered = [(str(row.pk), str(row)) for row in rows]
            chosen = self.value()
            if chosen and chosen not in dict(offered):
                offered.insert(0, (chosen, _name(related, chosen)))
            return offered

        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            chosen = self.value()
            if not chosen:
                return queryset
            try:
                key = related._meta.pk.to_python(chosen)
            except ValidationError as error:
                raise IncorrectLookupParameters from error
            return queryset.filter(**{path or parameter: key})

    ObjectFilter.parameter_name = parameter
    ObjectFilter.title = title or str(related._meta.verbose_name)
    return ObjectFilter


def _name(related: type[Model], chosen: str) -> str:
    try:
        row = related._default_manager.filter(pk=chosen).first()
    except (ValueError, ValidationError):  # not even the form of an id
        row = None
    return f"unknown: {chosen}" if row is None else str(row)
