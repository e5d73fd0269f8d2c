"""`fma verify`: compute a published aggregate again and compare."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fma_api.cli import data_folder
from fma_api.cli.problem import Problem

if TYPE_CHECKING:
    from fma_django.models import FederatedModel
    from fma_django.rounds.verification import Verification

MAX_ID_DIGITS = 18
# Not 1, with which every command ends that could not do what it was asked, nor 2, for wrong options.
DIFFERENT = 3


def verify(
    model: Annotated[
        str, typer.Argument(help="The model's id, or its name if no other has it.", show_default=False)
    ],
    number: Annotated[
        int | None,
        typer.Option("--round", min=1, help="The round's number; the newest published round without it."),
    ] = None,
    data: data_folder.DataOption = data_folder.DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line, for programs.")] = False,
) -> None:
    """Compute a published aggregate again from its stored updates, and compare the hashes; check their signatures.

    Exit code 0 means that the updates give the same aggregate and the same strategy state, bit for bit, and that no
    signature of a client is wrong for its update. A signature covers the bytes that the client sent, so it says nothing
    of a file that the server has converted (JSON, zstd, quantised weights): these are counted. Exit code 3 means that
    they give something else, or that a signature is wrong. Exit code 1 means that the round cannot be computed again:
    an update is gone or cannot be read, or a plugin is missing. Nothing is changed. The server may be running or not.

    **Examples**

    ```
    fma verify 3
    fma verify digits --round 12
    fma verify 3 --json --data ./fma-data
    ```
    """
    open_existing(data_folder.use(data))
    from fma_core.errors import FMAError
    from fma_django.rounds.verification import verify_round

    federated_model = find_model(model)
    facts: dict[str, Any] = {"model": federated_model.pk, "name": federated_model.name}
    try:
        with _shown() as progress:
            verified = verify_round(federated_model, number, progress=progress)
    except FMAError as error:
        if not as_json:
            raise Problem(f"not verified: {error.message}") from error
        refused = {"round": number, "result": "not_verified", "code": error.code, "detail": error.message}
        print(json.dumps(facts | refused))
        raise typer.Exit(1) from error
    print(json.dumps(facts | _as_json(verified)) if as_json else _as_text(federated_model, verified))
    raise typer.Exit(DIFFERENT if verified.wrong_signatures or not verified.is_equal else 0)


def open_existing(data: Path) -> None:
    """Set up Django on a record that exists; nothing is created or migrated."""
    is_ours = not (os.environ.get("FMA_DATABASE_URL") or os.environ.get("FMA_DATABASE_URL_FILE"))
    if is_ours and not (data / "fma.sqlite3").exists():
        raise Problem(f"there is no record in the data folder {data}; name another with --data")
    data_folder.require_migrated()


def find_model(wanted: str) -> "FederatedModel":
    from fma_django.models import FederatedModel

    rows = FederatedModel.objects.all()
    if wanted.isascii() and wanted.isdigit() and len(wanted) <= MAX_ID_DIGITS:
        by_id = rows.filter(pk=int(wanted)).first()
        if by_id is not None:
            return by_id
    by_name = list(rows.filter(name=wanted).order_by("pk"))
    if not by_name:
        raise Problem(f"there is no model whose id or name is {wanted!r}")
    if len(by_name) > 1:
        ids = ", ".join(str(row.pk) for row in by_name)
        raise Problem(f"{len(by_name)} models are named {wanted!r}; say which by its id: {ids}")
    return by_name[0]


@contextmanager
def _shown() -> Iterator[Callable[[float], None]]:
    """Show a progress bar on a terminal, and nothing anywhere else."""
    # Here, because every command of `fma` loads this file, and the import takes 3 % of its start.
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("computing"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _as_json(verified: "Verification") -> dict[str, Any]:
    return {
        "round": verified.round_number,
        "result": "equal" if verified.is_equal else "different",
        "num_updates": verified.num_updates,
        "published": _hashes(verified.published_sha256, verified.published_state_sha256),
        "computed": _hashes(verified.computed_sha256, verified.computed_state_sha256),
        "signatures": {
            "num_signed": verified.num_signed,
            "other_files": list(verified.other_files),
            "num_other_keys": verified.num_other_keys,
            "wrong": list(verified.wrong_signatures),
        },
    }


def _hashes(weights: str, state: str) -> dict[str, str | None]:
    return {"sha256": weights, "state_sha256": state or None}


def _as_text(federated_model: "FederatedModel", verified: "Verification") -> str:
    plural = "" if verified.num_updates == 1 else "s"
    lines = [
        f"model {federated_model.pk} ({federated_model.name!r}), round {verified.round_number}, "
        f"{verified.num_updates} update{plural}",
        f"  published  sha256 {verified.published_sha256}",
        f"  computed   sha256 {verified.computed_sha256}",
    ]
    if verified.published_state_sha256 or verified.computed_state_sha256:
        lines += [
            f"  state published  sha256 {verified.published_state_sha256 or 'none'}",
            f"  state computed   sha256 {verified.computed_state_sha256 or 'none'}",
        ]
    if verified.num_signed:
        lines.append(f"  signatures of {verified.num_signed} update{'s' if verified.num_signed > 1 else ''}")
    if verified.other_files:
        lines.append(
            f"  {len(verified.other_files)} of these cover other bytes than the stored file: the server converted it, "
            "or it was replaced in the record; the signature cannot tell which"
        )
    if verified.num_other_keys:
        lines.append(
            f"  {verified.num_other_keys} of these are of another key than their client has now: it was replaced "
            "since, or the record was changed"
        )
    if verified.wrong_signatures:
        ids = ", ".join(map(str, verified.wrong_signatures))
        lines.append(f"wrong signatures: what the record says of update {ids} is not what its client signed")
    if verified.is_equal:
        lines.append("equal: the published aggregate is what its updates give")
    else:
        lines.append("different: the published aggregate is not what the stored updates give")
    return "\n".join(lines)
