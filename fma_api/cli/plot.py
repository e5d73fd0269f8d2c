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
    from matplotlib.axes import Axes

    from fma_django.record.queries.curves import Curve

MAX_PANELS = 6
MAX_ROUNDS = 100_000
BLUE, GREY = "#1f5fbf", "#555555"


def plot(
    model: Annotated[
        str, typer.Argument(help="The model's id, or its name if no other has it.", show_default=False)
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", help="Only this one, such as `loss`; without it, up to six.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The PNG to write; `model-ID.png` here without it.", dir_okay=False),
    ] = None,
    data: data_folder.DataOption = data_folder.DEFAULT,
) -> None:
    """Draw what was measured in the published rounds of a model, and print where the picture is.

    The line is the mean over the clients, weighted by examples; the band is from the 5th to the 95th percentile of the
    clients. Needs the `plot` extra. The server may be running or not.

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

    found = find_model(model)
    curves = curves_of(found, metric=metric, num_rounds=MAX_ROUNDS)
    if not curves:
        raise Problem(_nothing_to_draw(metric, [curve.metric for curve in curves_of(found)]))
    to = out or Path(f"model-{found.pk}.png")
    try:
        draw(curves[:MAX_PANELS], title=found.name, to=to)
    except OSError as error:
        raise Problem(f"{to} cannot be written: {error.strerror}") from error
    print(to)


def draw(curves: Sequence["Curve"], *, title: str, to: Path) -> None:
    """Write a PNG with a panel for each curve. Needs no display."""
    # Without pyplot: nothing global, and no window system is looked for.
    from matplotlib.figure import Figure

    num_columns = 1 if len(curves) == 1 else 2
    num_rows = ceil(len(curves) / num_columns)
    figure = Figure(figsize=(5.5 * num_columns, 3.4 * num_rows + 0.4), dpi=150, layout="constrained")
    # A dollar sign would begin a formula.
    figure.suptitle(_plain(title), fontsize=12, fontweight="bold", x=0.01, ha="left")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flat
    for axes, curve in zip(panels, curves, strict=False):
        _draw(axes, curve)
    for axes in list(panels)[len(curves) :]:
        axes.set_visible(False)
    figure.savefig(to, format="png")


def _draw(axes: "Axes", curve: "Curve") -> None:
    from matplotlib.ticker import MaxNLocator

    rounds = [point.round for point in curve.points]
    low, high = [point.low for point in curve.points], [point.high for point in curve.points]
    axes.fill_between(rounds, low, high, color=BLUE, alpha=0.15, linewidth=0)
    marker = "o" if len(rounds) <= 40 else ""
    axes.plot(
        rounds,
        [point.mean for point in curve.points],
        color=BLUE,
        linewidth=1.8,
        marker=marker,
        markersize=3.5,
    )
    axes.set_title(_plain(curve.title), fontsize=10, color=GREY, loc="left")
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def _nothing_to_draw(metric: str | None, known: Sequence[str]) -> str:
    if metric is None or not known:
        return "no published round of this model has metrics"
    return f"no published round has the metric {metric!r}; there are {', '.join(sorted(set(known)))}"
