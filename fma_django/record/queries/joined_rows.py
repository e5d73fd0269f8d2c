"""Rows of several tables in one read, whose SQL is written once."""

from functools import cached_property
from typing import Any

from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from fma_django.record.sql import Parameters, Statement


class JoinedRows(Statement):
    """A read of whole rows of several models. text: all after the columns. tables: models by their aliases."""

    def __init__(self, text: str, **tables: type[Model]) -> None:
        columns = ", ".join(f"{{{alias}:*}}" for alias in tables)
        super().__init__(f"SELECT {columns} {text}", prepared_as="", **tables)
        self._tables = tables

    def one(self, cursor: CursorWrapper, parameters: Parameters) -> list[Any] | None:
        """An instance of each model, None for one that was joined without a row; None when there is no row at all."""
        self.execute(cursor, parameters)
        row = cursor.fetchone()
        if row is None:
            return None
        instances: list[Any] = []
        start = 0
        for model, names, converters in self._converters:
            values = list(row[start : start + len(names)])
            start += len(names)
            if values[0] is None:  # the primary key
                instances.append(None)
                continue
            for index, expression, convert in converters:
                for one in convert:
                    values[index] = one(values[index], expression, connection)
            instances.append(model.from_db(connection.alias, names, values))
        return instances

    @cached_property
    def _converters(self) -> list[tuple[type[Model], list[str], list[tuple[int, Any, list[Any]]]]]:
        """The conversions from the database's values, as a query's compiler has them."""
        of_tables = []
        for alias, table in self._tables.items():
            converters = []
            for index, field in enumerate(table._meta.concrete_fields):
                expression = field.get_col(alias)
                convert = connection.ops.get_db_converters(expression)
                convert += expression.get_db_converters(connection)
                if convert:
                    converters.append((index, expression, convert))
            of_tables.append((table, [field.attname for field in table._meta.concrete_fields], converters))
        return of_tables
