"""Plots of the rounds of a simulation; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fma_core.simulation.result import SimulatedRound

# Colours that colour-blind people can distinguish. Source: Okabe and Ito 2008, Color Universal Design.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def draw_curves(rounds: Sequence[SimulatedRound], path: Path, metrics: Sequence[str] | None) -> Path:
    """Draw a panel for each metric: the value of `evaluate`, or the clients' mean with the range from p5 to p95."""
    known = sorted({name for each in rounds for name in (*each.metrics, *each.validation)})
    names = known if metrics is None else list(metrics)
    if not names or not set(names) <= set(known):
        raise ValueError(
            f"there is nothing to draw of {names or 'no metrics'}; known are {', '.join(known) or 'none'}"
        )
    try:
        # Without pyplot, which has global state and searches for a window system.
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(1 + 4 * len(names), 3.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name, colour in zip(panels, names, COLOURS * len(names), strict=False):
        clients = [(each.number, each.metrics[name]) for each in rounds if name in each.metrics]
        judged = [(each.number, each.validation[name]) for each in rounds if name in each.validation]
        if clients:
            numbers = [number for number, _ in clients]
            low, high = ([statistics[end] for _, statistics in clients] for end in ("p5", "p95"))
            axes.fill_between(
                numbers, low, high, color=colour, alpha=0.15, linewidth=0, label="clients, 5 to 95 %"
            )
            axes.plot(
                numbers,
                [statistics["mean"] for _, statistics in clients],
                color=colour,
                label="clients, mean",
            )
        if judged:
            axes.plot(*zip(*judged, strict=True), color=colour, marker="o", markersize=3, label="evaluate")
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
