"""Curves over rounds as pictures, of a simulation and of a hosted model; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fma_core.simulation.simulated_round import SimulatedRound

# Colours that colour-blind people can distinguish. Source: Okabe and Ito 2008, Color Universal Design.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#555555"


def draw_curves(rounds: Sequence[SimulatedRound], path: Path, metrics: Sequence[str] | None) -> Path:
    """Write a picture with a panel for each metric: `evaluate`'s values, and the clients' mean with its band."""
    known = sorted({name for each in rounds for name in (*each.metrics, *each.validation)})
    names = known if metrics is None else list(metrics)
    if not names or not set(names) <= set(known):
        raise ValueError(
            f"there is nothing to draw of {names or 'no metrics'}; known are {', '.join(known) or 'none'}"
        )
    figure = new_figure(1 + 4 * len(names), 3.6, dpi=110)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name, colour in zip(panels, names, COLOURS * len(names), strict=False):
        clients = [(each.number, each.metrics[name]) for each in rounds if name in each.metrics]
        judged = [(each.number, each.validation[name]) for each in rounds if name in each.validation]
        if clients:
            means, lows, highs = ([values[key] for _, values in clients] for key in ("mean", "p5", "p95"))
            draw_band(axes, [number for number, _ in clients], means, lows, highs, colour=colour)
        if judged:
            axes.plot(*zip(*judged, strict=True), color=colour, marker="o", markersize=3, label="evaluate")
        style(axes, title=name, xlabel="round")
        axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def new_figure(width: float, height: float, *, dpi: int) -> Figure:
    """An empty figure that needs no display. Sizes in inches. Raises ImportError without matplotlib."""
    try:
        # Without pyplot: nothing global, and no window system is looked for.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def draw_band(
    axes: Axes,
    rounds: Sequence[int],
    means: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    *,
    colour: str,
    marker: str = "",
) -> None:
    """Draw the clients' mean as a line, in a band from their 5th to their 95th percentile."""
    axes.fill_between(rounds, lows, highs, color=colour, alpha=0.15, linewidth=0, label="clients, 5 to 95 %")
    axes.plot(
        rounds, means, color=colour, linewidth=1.8, marker=marker, markersize=3.5, label="clients, mean"
    )


def style(axes: Axes, *, title: str, xlabel: str) -> None:
    """Set the title and the axes of a panel whose x-axis counts something from 1."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(plain(title), fontsize=10, color=GREY, loc="left")
    axes.set_xlabel(xlabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)


def plain(text: str) -> str:
    """The text with its dollar signs escaped: unescaped, they would begin a formula."""
    return text.replace("$", r"\$")
