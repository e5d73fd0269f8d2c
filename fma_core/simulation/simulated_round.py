"""One round of a simulation, as it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fma_core.engine import UpdateUse
from fma_core.selection import Refusal

Outcome = Literal["published", "failed", "quorum_not_met", "open"]


@dataclass(frozen=True)
class SimulatedRound:
    """One round. Clients are named by their ids, times are seconds of the virtual clock.

    chosen: the clients that were asked; refused: the others, and why. Where everybody may answer, all are chosen.
    answered: the clients whose updates were aggregated, in the order in which they came; stale: those among them
        that trained from an older aggregate.
    late: the clients that were still training when it ended. dropped: those that never answered. rejected: those
        whose answer did not count, and why.
    sha256: of the aggregate's canonical file, as the server shows it; "" when there is none, for which `failure` may
        have the reason.
    uses: by client, the use of its update in the aggregate: verdict, weight, norm of its step, distance to the result.
    metrics: the statistics of each number that clients measured, without those whose updates were rejected, by name:
        mean (weighted by examples), min, max, p5, p50, p95, count, weight. validation: what `evaluate` says of the
        aggregate.
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
    uses: Mapping[str, UpdateUse] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    validation: Mapping[str, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float]:
        """The weighted mean of each metric."""
        return {name: statistics["mean"] for name, statistics in self.metrics.items()}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
