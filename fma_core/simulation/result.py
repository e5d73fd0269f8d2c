"""The result of a simulation: a row for each round, and the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fma_core.simulation.curve import draw_curves
from fma_core.simulation.simulated_round import SimulatedRound
from fma_core.simulation.table import as_table


@dataclass(frozen=True, eq=False)
class Simulation:
    """The rounds of a simulation in their order, and the reason of its end.

    arrays: the newest model; None when there never was one.
    end_reason: "rounds" when the wanted number of rounds is over, the policy's reason when it ended the experiment, and
        "stalled" when nothing can happen any more; `waits_for` then says what is missing.
    seconds: the time of the virtual clock since the opening of the first round.
    """

    rounds: Sequence[SimulatedRound]
    arrays: Mapping[str, NDArray[Any]] | None
    end_reason: str
    waits_for: str
    seed: int
    seconds: float

    @property
    def sha256(self) -> str:
        """The digest of the newest aggregate; "" when there is none."""
        return next((each.sha256 for each in reversed(self.rounds) if each.sha256), "")

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """(round, value) of a metric where it is known: what `evaluate` says of it, or its mean over clients."""
        points = []
        for each in self.rounds:
            if metric in each.validation:
                points.append((each.number, each.validation[metric]))
            elif metric in each.metrics:
                points.append((each.number, each.metrics[metric]["mean"]))
        return points

    def table(self) -> str:
        """The rounds as text, one line each."""
        return as_table(self.rounds)

    def to_json(self) -> dict[str, Any]:
        """The result without the arrays, ready for `json.dumps`."""
        return {
            "end_reason": self.end_reason,
            "waits_for": self.waits_for,
            "seed": self.seed,
            "seconds": self.seconds,
            "sha256": self.sha256,
            "rounds": [each.to_json() for each in self.rounds],
        }

    def plot(self, path: Path | str, *, metrics: Sequence[str] | None = None) -> Path:
        """Draw metrics over rounds into a file (.png, .svg, .pdf); without names, all metrics.

        Raises ImportError without matplotlib, and ValueError when there is nothing to draw.
        """
        return draw_curves(self.rounds, Path(path), metrics)
