"""The facts that a simulated round decides by: `fma_core.rounds.life.Facts` from memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fma_core.rounds.closing import RoundFacts
from fma_core.selection import Candidate, PastRound
from fma_core.simulation.client import SimulatedClient
from fma_core.simulation.history import History
from fma_core.simulation.open_round import OpenRound


@dataclass(frozen=True)
class SimulatedFacts:
    """An open round at a moment of the virtual clock.

    reason: why the policy ends the experiment; None while it does not, or nothing has happened that could.
    """

    current: OpenRound
    clients: Mapping[str, SimulatedClient]
    history: History
    has_start: bool
    now_s: float
    reason: str | None
    is_running: bool = True
    is_aggregating: bool = False  # folding takes no virtual time

    @property
    def number(self) -> int:
        return self.current.number

    @property
    def is_started(self) -> bool:
        return self.current.started_s is not None

    @property
    def num_clients(self) -> int:
        return len(self.clients)

    @property
    def num_updates(self) -> int:
        return len(self.current.updates)

    @property
    def num_reopenings(self) -> int:
        return self.current.num_reopenings

    @property
    def num_draws(self) -> int:
        return self.current.num_draws

    def end_reason(self) -> str | None:
        return self.reason

    def progress(self) -> RoundFacts:
        updates = self.current.updates
        return RoundFacts(
            num_updates=len(updates),
            num_clients=self.num_clients,
            num_asked=self.current.num_asked,
            has_start=self.has_start,
            deadline_passed=self.current.deadline_passed(self.now_s),
            answered=updates,
            by_organisation=self.current.by_organisation,
        )

    def candidates(self) -> Iterable[Candidate]:
        return self.history.candidates(self.number, self.now_s)

    def past(self, limit: int | None) -> Sequence[PastRound]:
        return self.history.past

    def asked(self) -> set[str]:
        return set(self.current.chosen)
