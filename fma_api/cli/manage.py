"""`fma manage`: Django's own commands."""

from typing import Any

import typer

from fma_api.cli import data_folder

# Everything after the first word belongs to Django, options included.
RAW_ARGUMENTS: dict[str, Any] = {
    "context_settings": {
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    },
    "no_args_is_help": True,
}


def manage(context: typer.Context, data: data_folder.DataOption = data_folder.DEFAULT) -> None:
    """Run one of Django's own commands with the settings of this server.

    **Examples**

    ```
    fma manage migrate
    fma manage --data ./fma-data changepassword anna
    fma manage check --deploy
    fma manage help
    ```
    """
    if not context.args:  # but --data
        print(context.get_help())
        raise typer.Exit(2)
    data = data_folder.use(data)
    if context.args[0] == "migrate":
        data_folder.make_folder(data)  # SQLite makes the file, and not the folder
    from django.core.management import ManagementUtility

    utility = ManagementUtility(["fma manage", *context.args])
    utility.prog_name = "fma manage"
    utility.execute()
