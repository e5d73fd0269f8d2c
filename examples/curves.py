"""Plots of accuracy over rounds: one panel for each situation, with a label at the end of each curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that colour-blind people can distinguish. Source: Okabe and Ito 2008, Color Universal Design.
COLOURS = ("#D55E00", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
DASHED_FROM = 4  # so that curves that coincide are both seen
GREY = "#555555"
LINE_HEIGHT = 0.055  # of a label, as a share of the axes' height

Curves = Mapping[str, Sequence[float]]


def draw(
    panels: Mapping[str, Curves],
    *,
    title: str,
    to: Path,
    ylabel: str = "accuracy on images that no client has",
) -> Path:
    """Write a PNG. Panels are named by title, curves by label; a label has the same colour in all panels."""
    # Without pyplot, which has global state and searches for a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 + 3.2 * len(panels), 4.2), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    every_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (heading, curves) in zip(every_axes, panels.items(), strict=True):
        _draw_panel(axes, heading, curves)
    lowest = min(min(accuracies) for curves in panels.values() for accuracies in curves.values())
    every_axes[0].set_ylim(max(0.0, lowest - 0.1), 1.02)
    every_axes[0].set_ylabel(ylabel)
    _label(every_axes[-1], list(panels.values())[-1])
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, format="png")
    return to


def _draw_panel(axes: "Axes", heading: str, curves: Curves) -> None:
    from matplotlib.ticker import MaxNLocator

    for index, (accuracies, colour) in enumerate(zip(curves.values(), COLOURS, strict=False)):
        rounds = range(1, len(accuracies) + 1)
        dashes = (0, (4, 3)) if index >= DASHED_FROM else "-"
        axes.plot(
            rounds,
            accuracies,
            color=colour,
            linestyle=dashes,
            linewidth=1.8,
            marker="o",
            markersize=3,
            clip_on=False,
        )
    axes.set_title(heading, fontsize=10, color=GREY, loc="left")
    axes.set_xlabel("round")
    longest = max(len(accuracies) for accuracies in curves.values())
    axes.set_xlim(1 - 0.04 * longest, longest)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)


def _label(axes: "Axes", curves: Curves) -> None:
    """Put each label beside the end of its curve, or as near to it as the other labels allow."""
    from matplotlib.transforms import blended_transform_factory

    beside = blended_transform_factory(axes.transAxes, axes.transData)
    ends = {label: accuracies[-1] for label, accuracies in curves.items()}
    colours = dict(zip(curves, COLOURS, strict=False))
    bottom, top = axes.get_ylim()
    for label, height in _spread(ends, apart=LINE_HEIGHT * (top - bottom)).items():
        axes.plot(
            [1.0, 1.05],
            [ends[label], height],
            color=colours[label],
            linewidth=0.8,
            clip_on=False,
            transform=beside,
        )
        text = f"{label}  {ends[label]:.3f}"
        axes.text(1.06, height, text, color=colours[label], fontsize=9, va="center", transform=beside)


def _spread(ends: Mapping[str, float], *, apart: float) -> dict[str, float]:
    """The height of each label; labels that would overlap are stacked, centred on the ends of their curves."""

    def lowest(stack: list[str]) -> float:
        return sum(ends[label] for label in stack) / len(stack) - apart * (len(stack) - 1) / 2

    stacks: list[list[str]] = []
    for label in sorted(ends, key=lambda label: ends[label]):
        stacks.append([label])
        while len(stacks) > 1 and lowest(stacks[-2]) + apart * len(stacks[-2]) > lowest(stacks[-1]):
            last = stacks.pop()
            stacks[-1] += last
    return {label: lowest(stack) + apart * index for stack in stacks for index, label in enumerate(stack)}
