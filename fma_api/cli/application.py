"""The commands of `fma`, put together. Each one is a file; none imports Django before it runs."""

import gc
from importlib.metadata import version
from typing import Annotated

import typer

from fma_api.cli import client, manage, organisation, plot, serve, store, user, verify, web, worker
from fma_api.cli.demo import command as demo
from fma_api.cli.problem import exit_with_sentence

application = typer.Typer(
    name="fma",
    help="Run an aggregation server for federated learning, and manage it.",
    epilog="New here? `fma serve` starts a server, `fma user add NAME` adds its first user.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback with local variables would show secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)
application.command("serve")(serve.serve)
application.command("web")(web.web)
application.command("worker")(worker.worker)
application.command("verify")(verify.verify)
application.command("plot")(plot.plot)
application.command("demo")(demo.demo)
application.command("manage", **manage.RAW_ARGUMENTS)(manage.manage)
application.add_typer(user.application, name="user")
application.add_typer(client.application, name="client")
application.add_typer(organisation.application, name="organisation")
application.add_typer(store.application, name="store")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"fma {version('federated-model-aggregation')}")
        raise typer.Exit


@application.callback()
def fma(
    is_version_wanted: Annotated[
        bool,
        # Its own callback runs before the command is looked for, so that none need be named.
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options that belong to no command."""


def run() -> None:
    """Run the command line; whatever a person can put right ends with a sentence and exit code 1."""
    try:
        with exit_with_sentence():
            application()
    finally:
        # Measured: before it ends, the interpreter looks for 0.4 s through all that is loaded for what it can free.
        gc.freeze()
