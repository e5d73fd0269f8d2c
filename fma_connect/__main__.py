"""`python -m fma_connect INVITATION`: register this device once, and write its credential to a file."""

from __future__ import annotations

import argparse
import sys

from fma_connect.clients import Client
from fma_connect.exceptions import FMAConnectError


def main(arguments: list[str] | None = None) -> int:
    """Register, print the client's public id, and answer 0; or say in a sentence what is wrong, and answer 1."""
    parser = argparse.ArgumentParser(
        prog="python -m fma_connect",
        description="Register this device with an invitation, and write its credential to a file for "
        "Client(credential_file=…).",
    )
    parser.add_argument("invitation", help="the file of an invitation, or its link")
    parser.add_argument(
        "--credential-file", required=True, help="where the credential is written (mode 0600)"
    )
    parser.add_argument("--model", type=int, help="which model, when the invitation is for several")
    said = parser.parse_args(arguments)
    try:
        with Client(
            model=said.model,
            invitation=said.invitation,
            credential_file=said.credential_file,
            telemetry=False,
        ) as client:
            print(client.register())  # noqa: T201
    except FMAConnectError as error:
        print(f"fma_connect: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
