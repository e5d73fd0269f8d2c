"""`fma demo`: the main job, seen from registration to a published model."""

import itertools
import os
import shlex
import shutil
import sys
import time
import traceback
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from fma_api.cli import data_folder
from fma_api.cli.problem import Problem

if TYPE_CHECKING:
    from fma_api.cli.demo.processes import Processes

INTERRUPTED = 130
CALL_TIMEOUT_S = 15.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def demo(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            envvar="FMA_DATA_DIR",
            metavar="DIR",
            help="Every run creates a folder of its own in it: demo-1, demo-2, …",
            file_okay=False,
        ),
    ] = data_folder.DEFAULT,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="The number of rounds.")] = 20,
    clients: Annotated[
        int, typer.Option("--clients", min=2, max=50, help="The number of clients, each a process.")
    ] = 5,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="The same seed gives the same data and the same accuracies.")
    ] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the server running afterwards, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The server's port; 0 takes any free one.")
    ] = 0,
) -> None:
    """Run a federation: clients with unequal shares of handwritten digits train one model.

    A real server and worker, and a process for each client that speaks HTTP only. The result is compared with
    training on all data in one place, and with the best that a client can do alone. The last line is for machines:
    `demo ok …` (exit code 0) or `demo failed: …` (1).

    **Examples**

    ```
    fma demo
    fma demo --keep
    fma demo --clients 8 --rounds 30 --seed 7
    ```
    """
    try:
        _demo(data, num_rounds=rounds, num_clients=clients, seed=seed, keep=keep, port=port)
    except KeyboardInterrupt:
        _fail("interrupted", exit_code=INTERRUPTED)
    except Problem as problem:
        _fail(str(problem))
    except Exception as error:  # noqa: BLE001 - whatever fails, the last line says so
        traceback.print_exc()
        _fail(f"{type(error).__name__}: {error}")


def _demo(data: Path, *, num_rounds: int, num_clients: int, seed: int, keep: bool, port: int) -> None:
    started_at = time.monotonic()
    _require_libraries()
    # Every process of the demo computes in one thread, the clients' share the cores. Must come before numpy.
    os.environ.update(ONE_THREAD)
    from fma_api.cli.demo import comparison, digits, display, federation, plot, server, verdict
    from fma_api.cli.demo.processes import Processes
    from fma_connect import DeveloperClient
    from fma_connect.exceptions import FMAConnectError

    console = Console(soft_wrap=True, highlight=False)
    plan = federation.Plan(num_clients=num_clients, num_rounds=num_rounds, seed=seed)
    folder = _new_folder(data.expanduser().absolute())
    with Processes() as processes:
        url = server.start(processes, folder, port=port)
        console.print(f"Starting a server and a worker over {folder}")
        console.print("Meanwhile: the same training without a federation, to compare with")
        divided = digits.divide(num_clients=num_clients, seed=seed)
        without = comparison.compare(divided, num_rounds=num_rounds, seed=seed)
        server.wait_until_ready(processes, url)
        login = server.add_user(folder)
        console.print(f"The server is ready at {url}. Who holds which handwritten digits:")
        console.print(display.shares(divided))
        with DeveloperClient(url, token=login.token, timeout_s=CALL_TIMEOUT_S) as developer:
            try:
                model = federation.create_model(developer, plan)
                federation.start_clients(
                    processes, plan, divided, url=url, model=model, folder=folder / "clients"
                )
                console.print(f"{num_clients} client processes train model {model} in {num_rounds} rounds:")
                with display.rounds(console, plan) as shown:
                    results = federation.watch(
                        developer,
                        processes,
                        plan,
                        divided,
                        model=model,
                        folder=folder,
                        on_answers=shown.answers,
                        on_published=shown.published,
                    )
                processes.wait(limit_s=federation.PATIENCE_S)
                verdict.require_complete_record(developer, model, plan)
                artifact = federation.publish(developer, results[-1], folder=folder)
            except FMAConnectError as error:
                processes.check()
                raise Problem(str(error)) from error
        accuracy = federation.accuracy_of(artifact, divided)
        picture = plot.draw(results, without, divided, to=folder / "demo.png")
        console.print(display.comparison(accuracy, without))
        console.print(f"Published, and downloaded again: {artifact}")
        console.print(f"Picture:                         {picture}")
        verdict.require_accuracy(accuracy, without)
        program = (
            "fma" if shutil.which("fma") else shlex.quote(sys.argv[0])
        )  # make does not activate its .venv
        serve = f"{program} serve --data {shlex.quote(str(folder))}"
        console.print(
            f"Look around at {url}/admin/ until Ctrl-C; later again with: {serve}"
            if keep
            else f"To look around, at http://127.0.0.1:8000/admin/: {serve}"
        )
        console.print(f"Log in as {login.username} with the password {login.password}")
        _say(
            f"demo ok rounds={num_rounds} clients={num_clients} accuracy={accuracy:.3f} "
            f"centralised={without.centralised:.3f} best_single={without.best_single:.3f} "
            f"seconds={time.monotonic() - started_at:.1f}"
        )
        if keep:
            _wait_for_ctrl_c(processes)


def _require_libraries() -> None:
    missing = [name for name in ("sklearn", "matplotlib") if find_spec(name) is None]
    if missing:
        raise Problem(
            f"the demo needs {' and '.join(missing)}; run: pip install 'federated-model-aggregation[demo]'"
        )


def _new_folder(data: Path) -> Path:
    """A folder that no earlier run used; one of them may still be looked at."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbers = itertools.count(1)
        while True:
            folder = data / f"demo-{next(numbers)}"
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)  # the database holds tokens
                return folder
    except OSError as error:
        raise Problem(f"the folder {data} cannot be used: {error.strerror}") from error


def _wait_for_ctrl_c(processes: "Processes") -> None:
    try:
        while True:
            processes.check()
            time.sleep(0.2)
    except KeyboardInterrupt:
        return


def _say(last_line: str) -> None:
    print(last_line, flush=True)


def _fail(why: str, *, exit_code: int = 1) -> NoReturn:
    _say(f"demo failed: {' '.join(why.split())}")
    raise typer.Exit(exit_code)
