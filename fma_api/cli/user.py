"""`fma user`: the people who own models."""

import json
import sys
from typing import Annotated, Any

import typer

from fma_api.cli import data_folder
from fma_api.cli.problem import Problem

application = typer.Typer(help="Add people who own models.", no_args_is_help=True)


@application.callback()
def user() -> None:
    """Add people who own models: data scientists and administrators."""


@application.command("add")
def add(
    name: Annotated[str, typer.Argument(help="The name to log in with.", show_default=False)],
    data: data_folder.DataOption = data_folder.DEFAULT,
    staff: Annotated[
        bool, typer.Option("--staff", help="Let the user open the admin and see every model.")
    ] = False,
    password_stdin: Annotated[
        bool,
        typer.Option(
            "--password-stdin", help="Read a password from standard input; without it the user has none."
        ),
    ] = False,
) -> None:
    """Add a user and print one JSON line: the id, the name and an API token.

    Requests carry the token in the header `Authorization: Token …`. Only the admin's login page needs a password. The
    server may be running or not.

    **Examples**

    ```
    fma user add anna
    echo "$PASSWORD" | fma user add root --staff --password-stdin
    ```
    """
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    if password == "":
        raise Problem("--password-stdin: standard input has no password")
    data_folder.open_record(data_folder.use(data))
    print(json.dumps(add_user(name, password=password, is_staff=staff)))


def add_user(name: str, *, password: str | None, is_staff: bool) -> dict[str, Any]:
    """Add a user with an API token; raise Problem when the name or the password is refused."""
    from django.contrib.auth.models import User
    from django.contrib.auth.password_validation import validate_password
    from django.core.exceptions import ValidationError
    from django.db import transaction

    from fma_django.clients.tokens import issue_token

    added = User(username=name, is_staff=is_staff, is_superuser=is_staff)
    try:
        if password is not None:
            validate_password(password, added)
        added.set_password(password)
        with transaction.atomic():
            if User.objects.filter(username=name).exists():
                raise Problem(f"there is a user '{name}' already; names are given once")
            added.full_clean()
            added.save()
            token = issue_token(added)
    except ValidationError as error:
        raise Problem("\n".join(error.messages)) from error
    return {"id": added.pk, "username": name, "token": token}
