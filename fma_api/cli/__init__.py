"""The `fma` command. This file imports nothing of the server, so that without it a person gets a sentence."""

import sys
from importlib.util import find_spec


def main() -> None:
    for name in ("django", "granian", "typer"):
        if find_spec(name) is None:
            sys.exit(
                f"fma: the server is not installed ({name} is missing); "
                "run: pip install 'federated-model-aggregation[server]'"
            )
    from fma_api.cli.application import run

    run()
