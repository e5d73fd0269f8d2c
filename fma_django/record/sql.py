"""SQL that is written once, when its module is imported, with the names of the models.

For what happens with each update or each second: the ORM takes ten to twenty times as long to write such a statement
as a database takes to run it. A model, column or choice that does not exist stops the import.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar, get_type_hints
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

Row = TypeVar("Row", bound=tuple[Any, ...])
Parameters = Mapping[str, Any]

# By the driver's own connection: a new one knows none of them.
_prepared: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


class Statement:
    """One statement.

    text: as for str.format. `{r}` is the table of the model `r` under this alias, `{r.state}` its column, `{r:*}` all
    of its columns, and `{r.state:bare}` a column without its alias, as SET wants it. A choice, or some of them, become
    literals: `{collecting}`, `{accepted}`. `%(id)s` is a parameter; parameters have names, because Django's SQLite
    backend looks for `%s` by a regular expression, which takes a fifth of a statement's time.
    prepared_as: the name by which PostgreSQL keeps the statement's plan, if it is to.
    """

    def __init__(
        self,
        text: str,
        *,
        prepared_as: str = "",
        **names: type[Model] | Enum | Sequence[Enum],
    ) -> None:
        self.text = text.format(**{name: _written(name, named) for name, named in names.items()})
        self._prepared_as = prepared_as
        self._parameters = tuple(dict.fromkeys(re.findall(r"%\((\w+)\)s", self.text)))
        self._execute = f"EXECUTE {prepared_as} ({', '.join(f'%({name})s' for name in self._parameters)})"

    def execute(self, cursor: CursorWrapper, parameters: Parameters) -> None:
        if self._prepared_as and _prepares(cursor.db):
            self._prepare(cursor)
            cursor.execute(self._execute, parameters)
        else:
            cursor.execute(self.text, parameters)

    def _prepare(self, cursor: CursorWrapper) -> None:
        prepared = _prepared.setdefault(cursor.db.connection, set())
        if self._prepared_as not in prepared:
            numbered = self.text % {name: f"${number}" for number, name in enumerate(self._parameters, 1)}
            cursor.execute(f"PREPARE {self._prepared_as} AS {numbered}")
            prepared.add(self._prepared_as)


class Select(Statement, Generic[Row]):
    """A read of rows whose fields say what they are read from.

    row: a NamedTuple with fields such as `number: Annotated[int, "{r.number}"]`. A field that has a default is read
    only by a statement that names its table.
    text: all after the columns.
    """

    def __init__(self, row: type[Row], text: str, *, prepared_as: str = "", **names: Any) -> None:
        columns = ", ".join(_columns(row, names))
        super().__init__(f"SELECT {columns} {text}", prepared_as=prepared_as, **names)
        self._row = row

    def one(self, cursor: CursorWrapper, parameters: Parameters) -> Row | None:
        self.execute(cursor, parameters)
        values = cursor.fetchone()
        return None if values is None else self._row(*values)

    def all(self, cursor: CursorWrapper, parameters: Parameters) -> list[Row]:
        self.execute(cursor, parameters)
        return [self._row(*values) for values in cursor.fetchall()]


def insert(model: type[Model], *, prepared_as: str = "", returning: str = "") -> Statement:
    """The insertion of a row: its parameters are the columns of the model, without a key that the database counts."""
    columns = [field.attname for field in model._meta.concrete_fields if field is not model._meta.auto_field]
    names = ", ".join(f"{{t.{column}:bare}}" for column in columns)
    values = ", ".join(f"%({column})s" for column in columns)
    text = f"INSERT INTO {{t}} ({names}) VALUES ({values})"  # noqa: S608
    if returning:
        text += f" RETURNING {{t.{returning}:bare}}"
    return Statement(text, prepared_as=prepared_as, t=model)


def moment(cursor: CursorWrapper, value: datetime) -> Any:
    """A time as the database takes it."""
    database = cursor.db
    if not database.features.supports_timezones:  # as Django does, which asks its settings each time
        value = value.astimezone(database.timezone).replace(tzinfo=None)
    return database.ops.adapt_datetimefield_value(value)


def uuid(cursor: CursorWrapper, value: UUID) -> UUID | str:
    """A UUID as the database takes it."""
    return value if cursor.db.features.has_native_uuid_field else value.hex


class _Column(NamedTuple):
    alias: str
    name: str

    def __format__(self, spec: str) -> str:
        return f'"{self.name}"' if spec == "bare" else f'{self.alias}."{self.name}"'


class _Table:
    def __init__(self, alias: str, model: type[Model]) -> None:
        self._alias, self._model = alias, model
        self._columns = {
            field.attname: _Column(alias, str(field.column)) for field in model._meta.concrete_fields
        }

    def __getattr__(self, name: str) -> _Column:
        try:
            return self._columns[name]
        except KeyError:
            raise AttributeError(
                f"{self._model.__name__} has no column {name!r}; it has {', '.join(self._columns)}"
            ) from None

    def __format__(self, spec: str) -> str:
        if spec == "*":
            return ", ".join(f"{column}" for column in self._columns.values())
        return f'"{self._model._meta.db_table}" AS {self._alias}'


def _written(name: str, named: type[Model] | Enum | Sequence[Enum]) -> _Table | str:
    if isinstance(named, Enum):
        return _literal(named.value)
    if isinstance(named, Sequence):
        return f"({', '.join(_literal(choice.value) for choice in named)})"
    return _Table(name, named)


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else f"'{value}'"


def _columns(row: type[tuple[Any, ...]], names: Mapping[str, Any]) -> list[str]:
    defaults: Mapping[str, Any] = row._field_defaults  # type: ignore[attr-defined]
    columns = []
    for field, annotation in get_type_hints(row, include_extras=True).items():
        (expression,) = getattr(annotation, "__metadata__", (None,))
        if expression is None:
            raise TypeError(f"{row.__name__}.{field} does not say what it is read from")
        aliases = set(re.findall(r"\{(\w+)", expression))
        if field not in defaults or aliases <= names.keys():
            columns.append(expression)
    return columns


def _prepares(database: BaseDatabaseWrapper) -> bool:
    """Whether statements are prepared once for each connection: planning many joins takes PostgreSQL ten times as long
    as running them, and planning a write nearly as long. Not behind a pooler (`pooler.py`)."""
    return database.vendor == "postgresql" and not database.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
