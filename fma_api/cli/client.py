"""`fma client`: the devices and organisations that train."""

import typer

from fma_api.cli import data_folder
from fma_api.cli.secret_file import OutOption, for_the_secret

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
