"""The `fma` command. This file imports nothing of the server, so that without it a person gets a sentence."""

import os
import sys
from importlib.util import find_spec


def main() -> None:
    _open_standard_streams()
    for name in ("django", "granian", "typer"):
        if find_spec(name) is None:
            sys.exit(
                f"fma: the server is not installed ({name} is missing); "
                "run: pip install 'federated-model-aggregation[server]'"
            )
    from fma_api.cli.application import run

    run()


def _open_standard_streams() -> None:
    """Open the null device for each standard stream that is closed (`2>&-`).

    Otherwise the database's file gets the number of a closed one, and a library that writes to the error stream writes
    into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(null, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))
