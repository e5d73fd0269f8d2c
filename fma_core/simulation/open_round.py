"""The open round of a simulation, and the clients that are training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fma_core.selection import Refusal
from fma_core.selection.cohort.draw import draw
from fma_core.simulation.files import Update


@dataclass
class OpenRound:
    """The server's state of a round that collects.

    chosen: in the order of their names, and found at once.
    num_asked: the size of its cohort; None where everybody may answer, who are then all `chosen`.
    started_s: when its clients were chosen; None before that, and while it is opened again.
    began: who was told to train for it; num_trained: of how many of them it is known what came of it.
    updates: those that count, in the order in which they came; by_organisation: how many of each.
    """

    number: int
    opened_s: float
    started_s: float | None = None
    deadline_s: float | None = None
    chosen: Mapping[str, None] = field(default_factory=dict)
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    num_asked: int | None = None
    num_draws: int = 0
    num_reopenings: int = 0
    waits_for: str = ""
    began: set[str] = field(default_factory=set)
    num_trained: int = 0
    updates: dict[str, Update] = field(default_factory=dict)
    # Kept up to date: whoever counted anew at each arrival would take time with the square of the answers.
    by_organisation: Counter[str] = field(default_factory=Counter)
    dropped: set[str] = field(default_factory=set)
    rejected: dict[str, Refusal] = field(default_factory=dict)

    def deadline_passed(self, now_s: float) -> bool:
        return self.deadline_s is not None and self.deadline_s <= now_s

    def count(self, update: Update, *, organisation: str | None) -> None:
        """Let an update count, in place of an earlier one of its client."""
        self.by_organisation[organisation or ""] += update.client not in self.updates
        self.updates[update.client] = update

    def reopen(self) -> None:
        """Begin again: updates still count, clients that were asked may answer, those that failed may try again."""
        self.started_s = self.deadline_s = None
        self.num_reopenings += 1
        self.began -= self.dropped | set(self.rejected)
        self.dropped.clear()
        self.rejected.clear()


def ties(num_clients: int, *, seed: int, round_number: int) -> list[int]:
    """The order in which answers arrive that take equally long, for each client.

    Drawn, because with over-selection the order of the names would leave out the same clients every time. The fourth
    number of the seed keeps the draw apart from those of `select`.
    """
    rng = np.random.Generator(np.random.PCG64([seed, round_number, 0, 1]))
    return [int(place) for place in draw(num_clients, num_clients, rng)]
