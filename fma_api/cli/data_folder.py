"""The data folder that every command works on, and making it ready."""

import fcntl
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fma_api import secret_key
from fma_api.cli.problem import Problem

DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="FMA_DATA_DIR",
        metavar="DIR",
        help="The folder of the database, the weights and the secret key.",
        file_okay=False,
    ),
]
DEFAULT = Path("fma-data")


def use(data: Path) -> Path:
    """Point the settings of this process and of its children at the folder."""
    data = data.expanduser().absolute()
    os.environ["FMA_DATA_DIR"] = str(data)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fma_api.settings")
    return data


def make_ready(data: Path) -> None:
    """Make the folder and its secret key where they are missing, and bring the database up to date."""
    _make_with_key(data)
    _set_up_django()
    _check_migrations()
    with _one_at_a_time(data):
        from django.core.management import call_command
        from django.db import DatabaseError

        try:
            call_command("migrate", verbosity=0, interactive=False)
        except DatabaseError as error:
            raise Problem(f"the database cannot be used: {error}") from error


def require_migrated() -> None:
    """Set up Django, and raise Problem unless the database can be reached and is up to date."""
    _set_up_django()
    if _check_migrations():
        raise Problem("the database is not up to date; run: fma manage migrate")
    from django.db import connections

    connections.close_all()  # whoever calls is about to fork, and a connection has one owner


def refuse_later_version() -> None:
    """Set up Django, and raise Problem if a later version of fma has migrated the database."""
    _set_up_django()
    _check_migrations()


def open_record(data: Path) -> None:
    """Set up Django on the folder.

    A folder that nobody has served yet is made ready. A database that somebody else administers is not migrated
    behind their back.
    """
    is_ours = not (os.environ.get("FMA_DATABASE_URL") or os.environ.get("FMA_DATABASE_URL_FILE"))
    if not is_ours:
        require_migrated()
        return
    if not data.exists():
        # On the other stream: what the command prints may be read by a program.
        print(f"fma: making a new data folder, {data}", file=sys.stderr)
    _make_with_key(data)
    _set_up_django()
    if _check_migrations():
        make_ready(data)


def make_folder(data: Path) -> None:
    """Make the folder, for this user only, where it is missing."""
    with _as_problem(data):
        data.mkdir(mode=0o700, parents=True, exist_ok=True)


def _make_with_key(data: Path) -> None:
    make_folder(data)
    if not (os.environ.get("FMA_SECRET_KEY") or os.environ.get("FMA_SECRET_KEY_FILE")):
        with _as_problem(data):
            secret_key.make(data)


@contextmanager
def _as_problem(data: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Problem(f"the data folder {data} cannot be used: {error.strerror}") from error


def _set_up_django() -> None:
    import django

    # Measured: looking for garbage among all that is loaded takes an eighth of the time, and finds none. Nobody looks
    # through it later either, and so forked children go on sharing its memory.
    gc.disable()
    django.setup()
    gc.freeze()
    gc.enable()


def _check_migrations() -> int:
    """Refuse a database that a later version of fma has migrated; return how many migrations are to be applied."""
    from django.db import DatabaseError, connection
    from django.db.migrations.executor import MigrationExecutor

    try:
        executor = MigrationExecutor(connection)
        loader = executor.loader
        unapplied = len(executor.migration_plan(loader.graph.leaf_nodes()))
    except DatabaseError as error:
        raise Problem(f"the database cannot be used: {error}") from error
    known = set(loader.disk_migrations)
    for migration in loader.disk_migrations.values():
        known.update(migration.replaces)
    newer = sorted(
        name for app, name in loader.applied_migrations if app == "fma_django" and (app, name) not in known
    )
    if newer:
        raise Problem(
            f"the database was migrated by a later version of fma ({newer[-1]}); run that version, or restore the "
            "backup from before it"
        )
    return unapplied


@contextmanager
def _one_at_a_time(data: Path) -> Iterator[None]:
    # Two commands that start on an empty folder would both create the first table.
    with open(data / ".migrate.lock", "w") as lock:
        # As long as the other migrates: no limit is right for that, and the lock goes with its process.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
