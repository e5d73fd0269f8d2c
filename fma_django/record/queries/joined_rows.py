"""Rows of several tables in one read, whose SQL is written once: the ORM takes ten times as long to write such a read
as a database takes for it."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from django.db import connection
from django.db.models import Model


class JoinedRows:
    """tables: models by their aliases, in SQL that the caller writes with `columns`."""

    def __init__(self, **tables: type[Model]) -> None:
        self._tables = tables

    @cached_property
    def columns(self) -> str:
        """All of all tables, in the order in which `split` wants them."""
        return ", ".join(
            f'{alias}."{field.column}"'
            for alias, table in self._tables.items()
            for field in table._meta.concrete_fields
        )

    def split(self, row: Sequence[Any]) -> list[Any]:
        """An instance of each table; None for one that was joined without a row."""
        found: list[Any] = []
        start = 0
        for table, names, converters in self._converters:
            values = list(row[start : start + len(names)])
            start += len(names)
            if values[0] is None:  # the primary key
                found.append(None)
                continue
            for index, expression, convert in converters:
                for one in convert:
                    values[index] = one(values[index], expression, connection)
            found.append(table.from_db(connection.alias, names, values))
        return found

    @cached_property
    def _converters(self) -> list[tuple[type[Model], list[str], list[tuple[int, Any, list[Any]]]]]:
        """As a query's compiler has them: what the database's values become."""
        found = []
        for alias, table in self._tables.items():
            converters = []
            for index, field in enumerate(table._meta.concrete_fields):
                expression = field.get_col(alias)
                convert = connection.ops.get_db_converters(expression)
                convert += expression.get_db_converters(connection)
                if convert:
                    converters.append((index, expression, convert))
            found.append((table, [field.attname for field in table._meta.concrete_fields], converters))
        return found
