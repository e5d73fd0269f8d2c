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

# A person must be able to look at a database that a later version has migrated, and to build without a database.
# `migrate` is no looking: it would take migrations back below those that it does not know.
LEAVE_THE_RECORD_ALONE = frozenset(
    {
        "check",
        "collectstatic",
        "dbshell",
        "diffsettings",
        "findstatic",
        "help",
        "inspectdb",
        "makemigrations",
        "showmigrations",
        "sqlmigrate",
        "version",
        "--version",
    }
)
ASK_FOR_HELP = frozenset({"-h", "--help"})


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
    if context.args[0] not in LEAVE_THE_RECORD_ALONE and ASK_FOR_HELP.isdisjoint(context.args):
        data_folder.refuse_later_version()
    from django.core.management import ManagementUtility

    utility = ManagementUtility(["fma manage", *context.args])
    utility.prog_name = "fma manage"
    utility.execute()
