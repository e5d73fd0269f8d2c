"""A new installation, made by the squashed migration, has the schema of one that took the single ones."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder

from tests.servers.own_django import on_database

Schema = set[tuple[Any, ...]]

POSTGRES = (
    """SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default, is_identity
    FROM information_schema.columns WHERE table_schema = 'public'""",
    "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
)
SQLITE = (
    """SELECT tables.name, columns.name, columns.type, "notnull", dflt_value, pk
    FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns WHERE tables.type = 'table'""",
    # The number in the name of an index that SQLite makes itself follows the order of the columns.
    """SELECT tables.name, iif(origin = 'c', indexes.name, ''), "unique", origin, partial, group_concat(columns.name)
    FROM sqlite_master AS tables, pragma_index_list(tables.name) AS indexes, pragma_index_info(indexes.name) AS columns
    WHERE tables.type = 'table' GROUP BY tables.name, indexes.name""",
)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def two_databases(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The URLs of two empty databases."""
    if request.param == "sqlite":
        folder = request.getfixturevalue("tmp_path")
        yield [f"sqlite:///{folder / name}.sqlite3" for name in ("new", "old")]
        return
    server = request.getfixturevalue("postgres_server")
    with server.new_database() as new, server.new_database() as old:
        yield [new, old]


@pytest.mark.slow
def test_new_installations_have_the_schema_of_upgraded_ones(two_databases: list[str]) -> None:
    new, old = two_databases
    with on_database(new, secret_key="new"):
        assert "0001_squashed_0008_help_texts" in _migrate_to_newest()
        made, recorded = _schema(), MigrationRecorder(connection).applied_migrations().keys()
    with on_database(old, secret_key="old"):
        _migrate_as_an_earlier_version()
        assert "0002_strategies" in _migrate_to_newest()
        upgraded = _schema()
        assert MigrationRecorder(connection).applied_migrations().keys() == recorded

    assert made - upgraded == set()  # each difference is shown, where two large sets would not be
    assert upgraded - made == set()
    assert any("round_one_collecting_per_model" in map(str, row) for row in made)


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "fma_django", check_changes=True, dry_run=True)


def _migrate_as_an_earlier_version() -> None:
    executor = MigrationExecutor(connection)
    executor.loader.replace_migrations = False  # type: ignore[attr-defined]  # the stubs leave out its last letter
    executor.loader.build_graph()
    executor.migrate([("fma_django", "0001_initial")])


def _migrate_to_newest() -> list[str]:
    """Apply the migrations of our tables, without Django's signals; their names."""
    executor = MigrationExecutor(connection)
    newest = executor.loader.graph.leaf_nodes("fma_django")
    plan = executor.migration_plan(newest)
    executor.migrate(newest, plan)
    return [migration.name for migration, _ in plan]


def _schema() -> Schema:
    """All that the database says of its tables but the order of their columns."""
    if connection.vendor == "postgresql":
        return {row for query in POSTGRES for row in _rows(query)}
    written = _rows("SELECT type, tbl_name, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    clauses = {(*row, clause) for *row, sql in written for clause in _clauses(sql)}
    return clauses.union(*map(_rows, SQLITE))


def _rows(query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def _clauses(sql: str) -> Iterator[str]:
    """The columns and constraints of a CREATE TABLE, each as it is written."""
    begin, depth = sql.index("(") + 1, 0
    yield sql[:begin]
    for place in range(begin, len(sql)):
        depth += {"(": 1, ")": -1}.get(sql[place], 0)
        if depth < 0 or (depth == 0 and sql[place] == ","):
            yield sql[begin:place].strip()
            begin = place + 1
    yield sql[begin:]
