"""`fma plot`: the metrics of a model over its rounds, as a picture."""

from collections.abc import Sequence
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fma_api.cli import data_folder
from fma_api.cli.problem import Problem
from fma_api.cli.verify import find_model, open_existing

if TYPE_CHECKING:
    from fma_django.record.queries.curves import Curve

MAX_PANELS = 6
MAX_ROUNDS = 100_000
MAX_MARKERS = 40


def plot(
    model: Annotated[
        str, typer.Argument(help="The model's id, or its name if no other has it.", show_default=False)
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="Draw only this metric, such as `loss`; up to six without it.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The PNG to write; `model-ID.png` in this folder without it.", dir_okay=False
        ),
    ] = None,
    data: data_folder.DataOption = data_folder.DEFAULT,
) -> None:
    """Draw the metrics of a model's published rounds as a PNG, and print its path.

    The line is the mean over the clients, weighted by examples; the band reaches from the 5th to the 95th percentile.
    The command needs the `plot` extra. The server may be running or not.

    **Examples**

    ```
    fma plot 3
    fma plot digits --metric loss --out loss.png
    ```
    """
    if find_spec("matplotlib") is None:
        raise Problem("fma plot needs matplotlib: pip install 'federated-model-aggregation[plot]'")
    open_existing(data_folder.use(data))
    from fma_django.record.queries.curves import curves_of

    federated_model = find_model(model)
    curves = curves_of(federated_model, metric=metric, num_rounds=MAX_ROUNDS)
    if not curves:
        raise Problem(_nothing_to_draw(metric, [curve.metric for curve in curves_of(federated_model)]))
    to = out or Path(f"model-{federated_model.pk}.png")
    try:
        draw(curves[:MAX_PANELS], title=federated_model.name, to=to)
    except OSError as error:
        raise Problem(f"{to} cannot be written: {error.strerror}") from error
    print(to)


def draw(curves: Sequence["Curve"], *, title: str, to: Path) -> None:
    """Write a PNG with a panel for each curve."""
    from fma_core.simulation.curve import COLOURS, draw_band, new_figure, plain, style

    num_columns = 1 if len(curves) == 1 else 2
    num_rows = ceil(len(curves) / num_columns)
    figure = new_figure(5.5 * num_columns, 3.4 * num_rows + 0.4, dpi=150)
    figure.suptitle(plain(title), fontsize=12, fontweight="bold", x=0.01, ha="left")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes, curve in zip(panels, curves, strict=False):
        points = curve.points
        draw_band(
            axes,
            [point.round for point in points],
            [point.mean for point in points],
            [point.low for point in points],
            [point.high for point in points],
            colour=COLOURS[0],
            marker="o" if len(points) <= MAX_MARKERS else "",
        )
        style(axes, title=curve.title, xlabel="round")
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    figure.savefig(to, format="png")


def _nothing_to_draw(metric: str | None, known: Sequence[str]) -> str:
    if metric is None or not known:
        return "no published round of this model has metrics"
    return f"no published round has the metric {metric!r}; there are {', '.join(sorted(set(known)))}"
