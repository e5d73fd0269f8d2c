"""`fma store`: the store of the weights."""

import json

import typer

from fma_api.cli import data_folder
from fma_api.cli.problem import Problem

application = typer.Typer(help="Say who owns the store of the weights.", no_args_is_help=True)


@application.callback()
def store() -> None:
    """The store of the weights."""


@application.command("take-over")
def take_over(data: data_folder.DataOption = data_folder.DEFAULT) -> None:
    """Make this installation the owner of its store, and print one JSON line with the owner's new id.

    The owner deletes files that none of its rows name. After a database was restored from a dump, or the store was
    moved, run this once in the installation that goes on. Stop every other one that uses the same store first.

    **Example**

    ```
    fma store take-over
    ```
    """
    data_folder.open_record(data_folder.use(data))
    from fma_django.storage import StorageError, get_store
    from fma_django.work import store_owner

    try:
        print(json.dumps({"owner": str(store_owner.take_over(get_store()))}))
    except StorageError as error:
        raise Problem(error.message) from error
