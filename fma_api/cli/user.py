"""`fma user`: the people who own models."""

import re
import sys
from datetime import timedelta
from typing import Annotated, Any

import typer

from fma_api.cli import data_folder
from fma_api.cli.problem import Problem
from fma_api.cli.secret_file import OutOption, for_the_secret

LONGEST_PASSWORD = 4096  # as over the API
UNITS = {"m": "minutes", "h": "hours", "d": "days"}

application = typer.Typer(help="Add people who own models.", no_args_is_help=True)


@application.callback()
def user() -> None:
    """Add people who own models: data scientists and administrators."""


@application.command("add")
def add(
    name: Annotated[str, typer.Argument(help="The name to log in with.", show_default=False)],
    data: data_folder.DataOption = data_folder.DEFAULT,
    roles: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            help="A role of the user, such as 'data scientist' or 'operator'; may be given several times. "
            "By default the first user is an owner, and any other a data scientist.",
            show_default=False,
        ),
    ] = None,
    staff: Annotated[
        bool, typer.Option("--owner", "--staff", help="Let the user do everything, in the admin too.")
    ] = False,
    password_stdin: Annotated[
        bool,
        typer.Option(
            "--password-stdin", help="Read a password from standard input; without it the user has none."
        ),
    ] = False,
    out: OutOption = None,
) -> None:
    """Add a user and print one JSON line: the id, the name and an API token.

    Requests carry the token in the header `Authorization: Token …`. Only the admin's login page needs a password. The
    server may be running or not.

    **Examples**

    ```
    fma user add anna --out anna.json
    fma user add ben --role operator --role "data scientist"
    echo "$PASSWORD" | fma user add root --owner --password-stdin
    ```
    """
    password = None
    if password_stdin:
        password = sys.stdin.readline(LONGEST_PASSWORD + len("\r\n")).rstrip("\r\n")
        if not 0 < len(password) <= LONGEST_PASSWORD:
            raise Problem(
                "--password-stdin: standard input has no password"
                if not password
                else f"--password-stdin: a password has at most {LONGEST_PASSWORD} characters"
            )
    with for_the_secret(out) as line:
        data_folder.open_record(data_folder.use(data))
        line.write(add_user(name, password=password, is_owner=staff, roles=roles))


@application.command("token")
def token(
    name: Annotated[str, typer.Argument(help="The name of a user.", show_default=False)],
    data: data_folder.DataOption = data_folder.DEFAULT,
    new: Annotated[
        bool, typer.Option("--new", help="Make another token; the present one is refused from then on.")
    ] = False,
    token_name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Make a further token of this name, which is shown only once, instead of the token of a login.",
            show_default=False,
        ),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            help="With --name: 'read' (the default), 'write' (all but users, roles, organisations and tokens) or "
            "'admin' (everything that the user may).",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        int | None,
        typer.Option(help="With --name: the id of the only model that it reaches.", show_default=False),
    ] = None,
    expires_in: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="With --name: how long it works, such as 30m, 12h or 90d; by default until it is revoked.",
            show_default=False,
        ),
    ] = None,
    out: OutOption = None,
) -> None:
    """Print the line that `fma user add` printed, with the API token of a user who exists.

    The token is the same one until it is revoked, the password or the secret key of the server changes, or the user is
    deactivated. With `--name` it is a further one.

    **Examples**

    ```
    fma user token anna --out anna.json
    fma user token anna --new
    fma user token anna --name backup --scope read --model 3 --expires-in 90d
    ```
    """
    if token_name is None and (scope, model, expires_in) != (None, None, None):
        raise Problem("--scope, --model and --expires-in are for a token with a --name of its own")
    lifetime = None if expires_in is None else _time(expires_in)
    with for_the_secret(out) as line:
        data_folder.open_record(data_folder.use(data))
        if token_name is None:
            line.write(token_of(name, is_new=new))
        else:
            line.write(
                named_token(
                    name, token_name, is_new=new, scope=scope or "read", model=model, lifetime=lifetime
                )
            )


@application.command("bind")
def bind(
    name: Annotated[str, typer.Argument(help="The name of a user.", show_default=False)],
    subject: Annotated[
        str, typer.Argument(help="The account at FMA_OIDC_ISSUER: its `sub`.", show_default=False)
    ],
    data: data_folder.DataOption = data_folder.DEFAULT,
) -> None:
    """Let an account at the identity provider log in a user.

    **Examples**

    ```
    fma user bind anna 6f1c2f7e-8c5b-4b0e-9f57-0d7e5f0b6a11
    ```
    """
    data_folder.open_record(data_folder.use(data))
    bind_account(name, subject)
    print(f"fma: {name} logs in as {subject}", file=sys.stderr)


@application.command("reset-second-factor")
def reset_second_factor(
    name: Annotated[str, typer.Argument(help="The name of a user.", show_default=False)],
    data: data_folder.DataOption = data_folder.DEFAULT,
) -> None:
    """Remove the second factor of a user who lost it: the authenticator app and the recovery codes.

    The user logs in with the password alone then, and may set up another one.

    **Examples**

    ```
    fma user reset-second-factor anna
    ```
    """
    data_folder.open_record(data_folder.use(data))
    if not take_off_second_factor(name):
        raise Problem(f"the user '{name}' has no second factor")
    print(f"fma: the second factor of {name} is removed", file=sys.stderr)


@application.command("lift-code-limit")
def lift_code_limit(
    name: Annotated[str, typer.Argument(help="The name of a user.", show_default=False)],
    data: data_folder.DataOption = data_folder.DEFAULT,
) -> None:
    """Let a user who sent too many wrong codes of the second factor try again at once.

    Somebody who knows the password may have sent them: give the user a new one first.

    **Examples**

    ```
    fma user lift-code-limit anna
    ```
    """
    data_folder.open_record(data_folder.use(data))
    from fma_django.accounts.second_factor import lift_limit

    if not lift_limit(_active_user(name), by=None):
        raise Problem(f"the user '{name}' has no second factor")
    print(f"fma: {name} may try codes again", file=sys.stderr)


def _time(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", text)
    if match is None:
        raise Problem(
            f"--expires-in is a number of minutes, hours or days, such as 30m, 12h or 90d; found {text!r}"
        )
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def add_user(
    name: str, *, password: str | None, is_owner: bool = False, roles: list[str] | None = None
) -> dict[str, Any]:
    """Add a user with an API token; raise Problem when the name, the password or a role is refused.

    roles: names. Without any, and without is_owner, the first user is an owner, and any other a data scientist.
    """
    from django.contrib.auth.models import User
    from django.db import transaction

    from fma_django.accounts.roles import DATA_SCIENTIST
    from fma_django.accounts.tokens import issue_token
    from fma_django.accounts.users import create_user
    from fma_django.errors import InvalidValue

    with transaction.atomic():
        if User.objects.filter(username=name).exists():
            raise Problem(f"there is a user '{name}' already; print the token by: fma user token {name}")
        if not roles and not is_owner:
            is_owner = not User.objects.exists()
            if is_owner:
                print(f"fma: {name} is the first user, and an owner, who may do everything", file=sys.stderr)
            roles = [] if is_owner else [DATA_SCIENTIST]
        try:
            added = create_user(
                name, by=None, password=password, is_owner=is_owner, roles=_named(roles or [])
            )
        except InvalidValue as error:
            raise Problem(error.message) from error
        token = issue_token(added)
        if not User.objects.filter(is_superuser=True, is_active=True).exists():
            print("fma: nobody is an owner yet; add one by: fma user add NAME --owner", file=sys.stderr)
    return {"id": added.pk, "username": name, "token": token}


def _named(names: list[str]) -> list[Any]:
    from django.contrib.auth.models import Group

    roles = {role.name: role for role in Group.objects.order_by("pk")}
    for name in names:
        if name not in roles:
            known = ", ".join(f"'{role}'" for role in roles)
            raise Problem(f"there is no role '{name}'; there are {known}")
    return [roles[name] for name in names]


def token_of(name: str, *, is_new: bool) -> dict[str, Any]:
    """The API token of a user; raise Problem when there is no such user, or the user may not log in."""
    from fma_django.accounts.tokens import LOGIN, issue_token, revoke_tokens

    user = _active_user(name)
    if is_new:
        revoke_tokens(user, name=LOGIN)
    return {"id": user.pk, "username": name, "token": issue_token(user)}


def named_token(
    name: str, token_name: str, *, is_new: bool, scope: str, model: int | None, lifetime: timedelta | None
) -> dict[str, Any]:
    """A further token of a user; raise Problem when the user, the model, the name or the scope is refused.

    is_new: whether it replaces one of the same name.
    """
    from django.db import transaction
    from django.utils import timezone

    from fma_django.accounts.tokens import SCOPES, Limits, create_token, revoke_tokens
    from fma_django.errors import InvalidValue
    from fma_django.models import FederatedModel

    if not 1 <= len(token_name) <= 100 or not token_name.isprintable():
        raise Problem("--name has 1 to 100 printable characters")
    if scope not in SCOPES:
        raise Problem(f"there is no scope '{scope}'; there are {', '.join(SCOPES)}")
    user = _active_user(name)
    federated_model = None if model is None else FederatedModel.objects.filter(pk=model).first()
    if model is not None and federated_model is None:
        raise Problem(f"there is no model {model}")
    expires_on = None if lifetime is None else timezone.now() + lifetime
    with transaction.atomic():
        if is_new:
            revoke_tokens(user, name=token_name)
        try:
            made, token = create_token(user, token_name, Limits(scope, federated_model, expires_on))
        except InvalidValue as error:
            raise Problem(error.message) from error
    return {
        "id": user.pk,
        "username": name,
        "token": token,
        "name": made.name,
        "scope": made.scope,
        "federated_model": model,
        "expires_on": None if expires_on is None else expires_on.isoformat(),
    }


def bind_account(name: str, subject: str) -> None:
    """Let an account of the provider log in the user. Raises Problem when it is another user's."""
    from fma_django.accounts import sign_on
    from fma_django.errors import Refused

    try:
        sign_on.bind_account(_active_user(name), subject, by=None)
    except Refused as error:
        raise Problem(error.message) from error


def take_off_second_factor(name: str) -> bool:
    """Remove the second factor of a user; whether there was one. Raises Problem when there is no such user."""
    from fma_django.accounts.second_factor import take_off

    return take_off(_active_user(name), by=None)


def _active_user(name: str) -> Any:
    from django.contrib.auth.models import User

    user = User.objects.filter(username=name).first()
    if user is None:
        raise Problem(f"there is no user '{name}'; add one by: fma user add {name}")
    if not user.is_active:
        raise Problem(
            f"the user '{name}' is not active, and no token works; staff can change that in the admin"
        )
    return user
