"""`python -m fma_connect INVITATION`: register this device once, and write its credential to a file.

With `--key-request` it writes the request for a certificate of the device's key, and calls no server; with
`--certificate` it sends the certificate.
"""

from __future__ import annotations

import argparse
import sys

from fma_connect.clients import Client
from fma_connect.credential import CredentialFile
from fma_connect.exceptions import FMAConnectError, InvalidArgument
from fma_connect.key import write_request


def main(arguments: list[str] | None = None) -> int:
    """Register, print the client's public id, and answer 0; or say in a sentence what is wrong, and answer 1."""
    parser = argparse.ArgumentParser(
        prog="python -m fma_connect",
        description="Register this device with an invitation, and write its credential to a file for "
        "Client(credential_file=…).",
    )
    parser.add_argument(
        "invitation",
        nargs="?",
        help="the file of an invitation, or its link; not for a credential file that is there already",
    )
    parser.add_argument(
        "--credential-file", required=True, help="where the credential is written (mode 0600)"
    )
    parser.add_argument("--model", type=int, help="which model, when the invitation is for several")
    parser.add_argument(
        "--key-request",
        metavar="FILE",
        help="write the request for a certificate, for `fma organisation sign`, and register later",
    )
    parser.add_argument(
        "--certificate", metavar="FILE", help="the certificate that the organisation has signed"
    )
    said = parser.parse_args(arguments)
    try:
        with _client(said) as client:
            if said.key_request is not None:
                write_request(said.key_request, client.key_request())
            else:
                print(client.register())  # noqa: T201
    except FMAConnectError as error:
        print(f"fma_connect: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _client(said: argparse.Namespace) -> Client:
    """Raises InvalidArgument without an invitation, and without a credential that says the server."""
    kept = CredentialFile(said.credential_file).load() if said.invitation is None else None
    if said.invitation is None and kept is None:
        raise InvalidArgument(f"there is no credential file {said.credential_file}: name an invitation")
    return Client(
        None if kept is None else kept.server,
        said.model if kept is None else kept.model,
        invitation=said.invitation,
        certificate=said.certificate,
        credential_file=said.credential_file,
        telemetry=False,
    )


if __name__ == "__main__":
    sys.exit(main())
