"""`fma organisation`: the key with which an organisation signs the keys of its clients. No server, and no database."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from fma_api import private_file
from fma_api.cli.problem import Problem
from fma_core.errors import FMAError
from fma_core.identity.certificate import MEMBERS, Certificate, certificate_of, issue_certificate
from fma_core.identity.keys import (
    fingerprint,
    is_signed,
    new_private_key,
    public_key_in,
    public_key_of,
    signature_in,
)
from fma_core.identity.members import MAX_BYTES, read_members
from fma_core.identity.pem import private_key_pem, read_private_key
from fma_core.identity.possession import NO_SERVER, REQUEST, require_proof
from fma_core.identity.small_file import read_small_file

FORMAT = 1
DAY_S = 86400
# The clocks of devices and servers differ.
BEGINS_EARLIER_S = 300
OF_ORGANISATION = frozenset({"format", "organisation", "public_key"})
OF_REQUEST = frozenset({"format", "public_key", "key_proof"})

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="A file with the passphrase of the private key.", show_default=False
    ),
]

application = typer.Typer(
    help="Sign the keys of an organisation's clients, on a machine of its own.", no_args_is_help=True
)


@application.callback()
def organisation() -> None:
    """The key with which an organisation signs the keys of its clients. It never is on a server."""


@application.command("keygen")
def keygen(
    name: Annotated[str, typer.Argument(help="The name of the organisation.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            help="A new file for the private key, readable for this user only. The public file is made beside it, "
            "with the ending .pub.",
            show_default=False,
        ),
    ],
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase that protects the private key.")
    ] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make an organisation's key pair, and print one JSON line with its fingerprint.

    Keep the private file on a machine of the organisation, and a copy of it offline. Give the public file to the
    operator of the server, who enters it, and to the clients of the others, who trust it.

    **Example**

    ```
    fma organisation keygen "Hospital North" --out hospital.key --passphrase
    ```
    """
    public_file = _public_file_of(out)
    if public_file == out:
        raise Problem(f"{out} ends with .pub, as the public file does; name the private file otherwise")
    for path in (out, public_file):
        if os.path.lexists(path):
            raise Problem(f"{path} exists already; nothing was done")
    private_key = new_private_key()
    public_key = public_key_of(private_key)
    secret = _passphrase(passphrase_file, ask=passphrase, is_new=True)
    with _problems():
        # Refuses a name that no certificate can have, before anything is written.
        issue_certificate(private_key, public_key, organisation=name, not_before=0, not_after=1)
        pem = private_key_pem(private_key, secret)
    members = {"format": FORMAT, "organisation": name, "public_key": public_key.hex()}
    _write(out, pem)
    _write(public_file, f"{json.dumps(members, indent=2, ensure_ascii=False)}\n", mode=0o644)
    print(json.dumps({**_shown(members), "private_file": str(out), "public_file": str(public_file)}))


@application.command("sign")
def sign(
    request: Annotated[
        Path,
        typer.Argument(
            help="The request of a client, which `python -m fma_connect --key-request` writes.",
            show_default=False,
        ),
    ],
    key: Annotated[Path, typer.Option(help="The private key of the organisation.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A new file for the certificate.", show_default=False)],
    label: Annotated[str, typer.Option(help="The organisation's name for the client.")] = "",
    days: Annotated[int, typer.Option(min=1, max=36500, help="For how long the certificate is valid.")] = 365,
    not_before: Annotated[
        datetime | None,
        typer.Option(help="The time (UTC) from which it is valid; by default now.", show_default=False),
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign the key of a client, and print one JSON line with what was signed.

    Compare the fingerprint with the one on the device before you hand the certificate over.

    **Example**

    ```
    fma organisation sign request.json --key hospital.key --label "MRI scanner 3" --out certificate.json
    ```
    """
    if os.path.lexists(out):
        raise Problem(f"{out} exists already; nothing was done")
    with _problems(request):
        asked = _members_of(request, OF_REQUEST, "request of a client")
        public_key = public_key_in(asked["public_key"])
        require_proof(public_key, signature_in(asked["key_proof"]), REQUEST, "", servers=(NO_SERVER,))
    public_file = _public_file_of(key)
    with _problems(public_file):
        issuer = _members_of(public_file, OF_ORGANISATION, "public file of an organisation")
    with _problems(key):
        private_key = _private_key_in(key, passphrase_file)
        if public_key_of(private_key).hex() != issuer["public_key"]:
            raise Problem(f"{public_file} is of another key than {key}")
    begins = int(time.time()) - BEGINS_EARLIER_S
    if not_before is not None:
        begins = int(not_before.replace(tzinfo=UTC).timestamp())
    with _problems():
        certificate = issue_certificate(
            private_key,
            public_key,
            organisation=issuer["organisation"],
            label=label,
            not_before=begins,
            not_after=begins + days * DAY_S,
        )
    _write(out, f"{json.dumps(certificate.to_json(), indent=2, ensure_ascii=False)}\n", mode=0o644)
    print(json.dumps({**_shown_certificate(certificate), "file": str(out)}))


@application.command("show")
def show(
    file: Annotated[
        Path,
        typer.Argument(
            help="A certificate, a request, or the public file of an organisation.", show_default=False
        ),
    ],
) -> None:
    """Print what is in a file as one JSON line, with the fingerprints of its keys.

    It checks that the file is signed as it says, not that you can trust who signed it. The organisation is the one that
    a certificate names; servers and clients refuse it when its issuer is known to them as another's key.

    **Example**

    ```
    fma organisation show certificate.json
    ```
    """
    with _problems(file):
        members = _json_of(file)
        if members.keys() == MEMBERS:
            certificate = certificate_of(members)
            if not is_signed(certificate.issuer, certificate.encode(), certificate.signature):
                raise Problem(f"{file}: the signature of the certificate is wrong")
            shown = _shown_certificate(certificate)
        elif members.keys() == OF_REQUEST:
            public_key = public_key_in(members["public_key"])
            require_proof(public_key, signature_in(members["key_proof"]), REQUEST, "", servers=(NO_SERVER,))
            shown = _shown(members)
        else:
            shown = _shown(_members_of(file, OF_ORGANISATION, "certificate, request, or public file"))
    print(json.dumps(shown))


def _shown(members: dict[str, Any]) -> dict[str, Any]:
    named = {"organisation": members["organisation"]} if "organisation" in members else {}
    return {
        **named,
        "public_key": members["public_key"],
        "fingerprint": fingerprint(public_key_in(members["public_key"])),
    }


def _shown_certificate(certificate: Certificate) -> dict[str, Any]:
    return {
        "organisation": certificate.organisation,
        "issuer": fingerprint(certificate.issuer),
        "label": certificate.label,
        "fingerprint": fingerprint(certificate.public_key),
        "not_before": datetime.fromtimestamp(certificate.not_before, UTC).isoformat(),
        "not_after": datetime.fromtimestamp(certificate.not_after, UTC).isoformat(),
    }


def _members_of(file: Path, names: frozenset[str], kind: str) -> dict[str, Any]:
    """Raises Problem."""
    members = _json_of(file)
    is_right = members.keys() == names and type(members["format"]) is int and members["format"] == FORMAT
    if not is_right or not isinstance(members.get("organisation", ""), str):
        raise Problem(f"{file} is no {kind}")
    return members


def _json_of(file: Path) -> dict[str, Any]:
    """Raises Problem."""
    try:
        return read_members(file)
    except OSError as error:
        raise Problem(f"{file} cannot be read: {error.strerror}") from error
    except ValueError:
        raise Problem(f"{file} has no JSON object of at most {MAX_BYTES} bytes") from None


def _private_key_in(file: Path, passphrase_file: Path | None) -> bytes:
    """Raises Problem; InvalidKey."""
    try:
        content = read_small_file(file)
    except OSError as error:
        raise Problem(f"{file} cannot be read: {error.strerror}") from error
    is_protected = b"ENCRYPTED" in content
    return read_private_key(content, _passphrase(passphrase_file, ask=is_protected, is_new=False))


def _passphrase(file: Path | None, *, ask: bool, is_new: bool) -> str | None:
    """The passphrase of the file, or of the terminal; None without one. Raises Problem."""
    if file is not None:
        try:
            passphrase = read_small_file(file).decode().strip("\r\n")
        except OSError as error:
            raise Problem(f"{file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:  # its text quotes the file
            raise Problem(f"{file} is no text in UTF-8") from None
    elif not ask:
        return None
    elif not sys.stdin.isatty():
        raise Problem("there is no terminal to ask for the passphrase; use --passphrase-file")
    else:
        passphrase = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, err=True)
    if not passphrase:
        raise Problem("the passphrase is empty")
    return passphrase


def _public_file_of(private_file: Path) -> Path:
    return private_file.with_suffix(".pub")


def _write(path: Path, content: str, *, mode: int = 0o600) -> None:
    """Write a new file. Raises Problem."""
    try:
        with private_file.begin(path) as begun:
            begun.part.chmod(mode)
            begun.finish(content)
    except OSError as error:
        raise Problem(f"{path} cannot be made: {error.strerror}") from error


@contextmanager
def _problems(file: Path | None = None) -> Iterator[None]:
    """Say errors of keys and certificates in a sentence, with the file."""
    try:
        yield
    except FMAError as error:
        raise Problem(error.message if file is None else f"{file}: {error.message}") from error
