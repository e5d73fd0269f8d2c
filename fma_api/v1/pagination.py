"""Lists are bare arrays, as FMA's are; where the other pages are stands in a `Link` header (RFC 8288)."""

from collections.abc import Sequence
from typing import Any

from django.core.paginator import Paginator
from django.db.models import QuerySet
from rest_framework.exceptions import NotFound
from rest_framework.pagination import PageNumberPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param

# Further than any table reaches, and less than what databases count in.
LAST_ROW = 2**53


class LinkedPages(PageNumberPagination):
    """Nothing says how many rows there are in all, so nobody counts them: that would take as long as the table is."""

    page_size = 10
    page_size_query_param = "page_size"
    max_page_size = 200

    def paginate_queryset(
        self, queryset: QuerySet[Any] | Sequence[Any], request: Request, view: Any = None
    ) -> list[Any]:
        """The rows of the page; NotFound when there is no such page."""
        self._url = request.build_absolute_uri()
        size = self.get_page_size(request) or self.page_size
        # Asked for the "last" page, Django's own counts them after all.
        self._number = self._whole(self.get_page_number(request, Paginator(queryset, size)))
        first = (self._number - 1) * size
        if first > LAST_ROW:
            raise self._no_page()
        rows = list(queryset[first : first + size + 1])
        if not rows and first:
            raise self._no_page()
        self._has_next = len(rows) > size
        return rows[:size]

    def get_next_link(self) -> str | None:
        return self._link(self._number + 1) if self._has_next else None

    def get_previous_link(self) -> str | None:
        return self._link(self._number - 1) if self._number > 1 else None

    def get_paginated_response(self, data: Any) -> Response:
        links = {"next": self.get_next_link(), "prev": self.get_previous_link()}
        link = ", ".join(f'<{url}>; rel="{name}"' for name, url in links.items() if url)
        return Response(data, headers={"Link": link} if link else None)

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return schema

    def _link(self, number: int) -> str:
        if number == 1:
            return remove_query_param(self._url, self.page_query_param)
        return replace_query_param(self._url, self.page_query_param, number)

    def _whole(self, number: int | str) -> int:
        try:
            whole = int(number)
        except ValueError:
            raise self._no_page() from None
        if whole < 1:
            raise self._no_page()
        return whole

    def _no_page(self) -> NotFound:
        return NotFound("There is no such page.")


class LargePages(LinkedPages):
    page_size = 100
