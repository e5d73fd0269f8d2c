"""`--out FILE`: a command's line of JSON with a secret, into a file of this user that is never written over.

A shell empties the file of `fma user add anna > anna.json` before the command runs, also when the command then refuses.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from fma_api import private_file
from fma_api.cli.problem import Problem

OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="A new file for the line, readable for this user only; the secret is not printed then. "
        "A file that exists is refused before anything is done.",
        show_default=False,
    ),
]


class Printed:
    """Prints the line."""

    def write(self, said: dict[str, Any]) -> None:
        print(json.dumps(said))


class _Written(Printed):
    def __init__(self, begun: private_file.Begun, out: Path) -> None:
        self._begun, self._out = begun, out

    def write(self, said: dict[str, Any]) -> None:
        try:
            self._begun.finish(f"{json.dumps(said)}\n")
        except OSError as error:
            kept = self._begun.part.with_name(f"{self._out.name}.{os.getpid()}.kept")
            self._begun.part.rename(kept)
            raise Problem(f"{self._out} cannot be made: {error.strerror}; the line is in {kept}") from error
        print(json.dumps({**{key: said[key] for key in said if key not in SECRETS}, "file": str(self._out)}))


SECRETS = ("token", "uuid")


@contextmanager
def for_the_secret(out: Path | None) -> Iterator[Printed]:
    """The place for a line of JSON: standard output, or the file `out`, which appears complete and with mode 0600.

    Raises Problem when the file exists or its folder cannot be written, before the body of the `with` has begun.
    """
    if out is None:
        yield Printed()
        return
    if os.path.lexists(out):
        raise Problem(
            f"{out} exists already, and may hold a secret that is shown only once; nothing was done"
        )
    with ExitStack() as stack:
        try:
            begun = stack.enter_context(private_file.begin(out))
        except OSError as error:
            raise Problem(f"{out} cannot be made: {error.strerror}") from error
        yield _Written(begun, out)
