"""The picture: accuracy by round beside what it is compared with, and who held which digits."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fma_api.cli.demo.comparison import Comparison
from fma_api.cli.demo.digits import NUM_CLASSES, Digits
from fma_api.cli.demo.federation import RoundResult
from fma_core.simulation.curve import COLOURS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEDERATED, SINGLE, CENTRALISED = COLOURS[:3]


def draw(results: Sequence[RoundResult], without: Comparison, digits: Digits, *, to: Path) -> Path:
    """Write the picture as a PNG."""
    figure = new_figure(12, 5, dpi=150)
    figure.suptitle(
        f"{len(digits.shares)} clients train one model and share nothing but weights",
        fontsize=14,
        fontweight="bold",
    )
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
    _draw_accuracy(left, results, without)
    _draw_shares(right, digits)
    figure.savefig(to)
    return to


def _draw_accuracy(axes: "Axes", results: Sequence[RoundResult], without: Comparison) -> None:
    numbers = [result.number for result in results]
    accuracies = [result.accuracy for result in results]
    for value, label, colour in (
        (without.centralised, "all data in one place", CENTRALISED),
        (without.best_single, "best single client", SINGLE),
    ):
        axes.axhline(value, color=colour, linestyle="--", linewidth=1.5, label=f"{label}: {value:.3f}")
    axes.plot(
        numbers,
        accuracies,
        color=FEDERATED,
        marker="o",
        markersize=4.5,
        linewidth=2,
        label=f"federated: {accuracies[-1]:.3f}",
    )
    style(axes, title="Accuracy on test images that no client has", xlabel="round")
    axes.set_ylabel("test accuracy")
    axes.set_xlim(0.5, numbers[-1] + 0.5)
    lowest = min([*accuracies, without.best_single])
    axes.set_ylim(max(0.0, lowest - 0.08), 1.0)
    axes.legend(loc="lower right", frameon=False)


def _draw_shares(axes: "Axes", digits: Digits) -> None:
    from matplotlib import colormaps

    colours = colormaps["tab10"]
    counts = [share.count_by_class() for share in digits.shares]
    positions = range(len(counts))
    below = [0] * len(counts)
    for digit in range(NUM_CLASSES):
        heights = [int(count[digit]) for count in counts]
        axes.bar(
            positions, heights, bottom=below, width=0.75, color=colours(digit), edgecolor="white", linewidth=0.6,
            label=str(digit),
        )  # fmt: skip
        below = [height + start for height, start in zip(heights, below, strict=True)]
    style(axes, title="What each client holds", xlabel="client")
    axes.set_ylabel("training images")
    axes.set_xticks(positions, [str(number + 1) for number in positions])
    axes.set_axisbelow(True)
    axes.legend(
        title="digit", frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), reverse=True, fontsize=9
    )
