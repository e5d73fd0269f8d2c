"""The result of a simulation: a row for each round, and the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from fma_core.selection import Refusal
from fma_core.simulation.curve import draw_curves
from fma_core.simulation.table import as_table

Outcome = Literal["published", "failed", "quorum_not_met", "open"]


@dataclass(frozen=True)
class SimulatedRound:
    """One round. Clients are named by their ids, times are seconds of the virtual clock.

    chosen: the clients that were asked; refused: the others, with the reasons. Without a selection all are chosen.
    answered: the clients whose updates are in the aggregate, in the order of arrival; stale: those of them that trained
        from an older aggregate.
    late: the clients that were still training when it ended. dropped: those that never answered. rejected: those whose
        answers were refused, with the reasons.
    sha256: the hash of the aggregate's canonical file, as the server shows it; "" without an aggregate, when `failure`
    may
        have the reason.
    metrics: the statistics of each number that the clients measured, by name: mean (weighted by examples), min, max,
        p5, p50, p95, count, weight. validation: the numbers that `evaluate` gave for the aggregate.
    """

    number: int
    outcome: Outcome
    chosen: tuple[str, ...]
    refused: Mapping[str, Refusal]
    answered: tuple[str, ...]
    stale: tuple[str, ...]
    late: tuple[str, ...]
    dropped: tuple[str, ...]
    rejected: Mapping[str, Refusal]
    opened_s: float
    ended_s: float
    num_reopenings: int = 0
    sha256: str = ""
    failure: Refusal | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    validation: Mapping[str, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float]:
        """The weighted mean of each metric."""
        return {name: statistics["mean"] for name, statistics in self.metrics.items()}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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
        """The hash of the newest aggregate; "" when there is none."""
        return next((each.sha256 for each in reversed(self.rounds) if each.sha256), "")

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """The known values of a metric as (round, value): from `evaluate`, or its mean over the clients."""
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
