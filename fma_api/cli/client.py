"""`fma client`: the devices and organisations that train."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from fma_api.cli import data_folder
from fma_api.cli.problem import Problem
from fma_api.cli.secret_file import OutOption, for_the_secret
from fma_core.identity.members import read_members

if TYPE_CHECKING:
    from fma_django.models import Client

application = typer.Typer(help="Add devices and organisations that train.", no_args_is_help=True)


@application.callback()
def client() -> None:
    """The devices and organisations that train."""


@application.command("add")
def add(data: data_folder.DataOption = data_folder.DEFAULT, out: OutOption = None) -> None:
    """Add a client and print one JSON line: its public id, and its credential, which is shown only once.

    Use it where FMA_REGISTRATION is `closed`. Give the `uuid` to the client, which sends it in the header
    `CLIENT-UUID`. Give the `id` to the owner of a model, who adds it to the model's clients.

    **Example**

    ```
    fma client add --out scanner-3.json
    ```
    """
    with for_the_secret(out) as line:
        data_folder.open_record(data_folder.use(data))
        from fma_django.clients.registration import create_client

        added, credential = create_client()
        line.write({"id": str(added.id), "uuid": str(credential)})


@application.command("rotate")
def rotate(
    client_id: Annotated[
        str, typer.Argument(metavar="ID", help="The public id of a client.", show_default=False)
    ],
    data: data_folder.DataOption = data_folder.DEFAULT,
    out: OutOption = None,
) -> None:
    """Print one JSON line with the next credential of a client, which is shown only once.

    The present credential works until the next one is first used, or for a day, whichever comes first.

    **Example**

    ```
    fma client rotate 6f1c2f7e-8c5b-4b0e-9f57-0d7e5f0b6a11 --out scanner-3.json
    ```
    """
    with for_the_secret(out) as line:
        data_folder.open_record(data_folder.use(data))
        line.write(next_credential_of(client_id))


@application.command("key")
def key(
    client_id: Annotated[
        str, typer.Argument(metavar="ID", help="The public id of a client.", show_default=False)
    ],
    request: Annotated[
        Path,
        typer.Option(
            help="The file that `python -m fma_connect --key-request` wrote there.", show_default=False
        ),
    ],
    data: data_folder.DataOption = data_folder.DEFAULT,
) -> None:
    """Replace the key of a client that has lost it, and print one JSON line with the fingerprints.

    The client cannot do this itself: whoever had stolen its credential could do so, too. Compare the fingerprint with
    the one on the device. The certificate of the key before goes with it.

    **Example**

    ```
    fma client key 6f1c2f7e-8c5b-4b0e-9f57-0d7e5f0b6a11 --request request.json
    ```
    """
    try:
        members = read_members(request)
    except OSError as error:
        raise Problem(f"{request} cannot be read: {error.strerror}") from error
    except ValueError:
        raise Problem(f"{request} is no request of a client") from None
    data_folder.open_record(data_folder.use(data))
    from fma_core.errors import FMAError
    from fma_django.clients.changes import replace_key
    from fma_django.clients.keys import sent_key

    replaced = _client(client_id)
    before = replaced.fingerprint
    try:
        sent = sent_key(members)
        if sent is None:
            raise Problem(f"{request} is no request of a client")
        replace_key(replaced, sent, by=None)
    except FMAError as error:
        raise Problem(f"{request}: {error.message}") from error
    print(json.dumps({"id": str(replaced.pk), "before": before or None, "fingerprint": replaced.fingerprint}))


def next_credential_of(client_id: str) -> dict[str, Any]:
    """The next credential of a client; raise Problem when there is no such client, or it is revoked."""
    from fma_django.clients.credentials import give_next_credential
    from fma_django.errors import UnknownClient

    client = _client(client_id)
    try:
        given = give_next_credential(client)
    except UnknownClient:
        raise Problem(f"the client '{client_id}' is revoked; add another one by: fma client add") from None
    return {
        "id": str(client.pk),
        "uuid": str(given.credential),
        "superseded_on": given.superseded_on.isoformat(),
    }


def _client(client_id: str) -> "Client":
    """Raises Problem."""
    from fma_django.models import Client

    try:
        client = Client.objects.filter(pk=UUID(client_id)).first()
    except ValueError:
        client = None
    if client is None:
        raise Problem(f"there is no client '{client_id}'; the admin and GET /api/v1/clients/ list them")
    return client
