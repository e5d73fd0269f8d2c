"""How many related rows there are, as a column of a list."""

from typing import Any

from django.db.models import Count, QuerySet, Subquery
from django.db.models.functions import Coalesce


def row_count(related: QuerySet[Any], by: str) -> Coalesce:
    """related: filtered by an OuterRef. by: the column that refers to the outer row.

    A subquery of its own: two joined counts in one query would multiply each other.
    """
    return Coalesce(Subquery(related.order_by().values(by).annotate(n=Count("pk")).values("n")), 0)
