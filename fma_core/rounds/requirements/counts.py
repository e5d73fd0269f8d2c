"""Requirements that count updates and clients: FMA's two, and none at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fma_core.parameters import Bounds
from fma_core.rounds.requirements.requirement import Requirement, RoundProgress, requirements


@requirements.register("none")
@dataclass(frozen=True)
class NoRequirement(Requirement):
    """One update is enough.

    >>> NoRequirement().is_met(RoundProgress(num_updates=1, num_clients=5, num_clients_answered=1))
    True
    """

    def is_met(self, progress: RoundProgress) -> bool:
        return progress.num_updates >= 1


@requirements.register("require_x_updates")
@dataclass(frozen=True)
class RequireXUpdates(Requirement):
    """Updates of at least `x` clients wait. FMA counts updates instead, so that one client could meet it alone.

    >>> RequireXUpdates(x=2).is_met(RoundProgress(num_updates=3, num_clients=5, num_clients_answered=1))
    False
    """

    x: Annotated[int, Bounds(ge=1), "the number of clients that must have an update waiting"]

    def is_met(self, progress: RoundProgress) -> bool:
        return progress.num_clients_answered >= self.x


@requirements.register("all_clients")
@dataclass(frozen=True)
class AllClients(Requirement):
    """Every client of the model has an update waiting, and there is at least one client.

    A server leaves out those that have only registered, once the model has an aggregate: a client counts from then on
    when it has joined a round or sent an update.

    >>> AllClients().is_met(RoundProgress(num_updates=2, num_clients=2, num_clients_answered=2))
    True
    """

    def is_met(self, progress: RoundProgress) -> bool:
        return 0 < progress.num_clients <= progress.num_clients_answered
