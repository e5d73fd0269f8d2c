"""The seam of requirements: when a round has enough updates to be closed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fma_core.parameters import CheckedPart
from fma_core.registry import Registry


@dataclass(frozen=True, slots=True)
class RoundProgress:
    """How far a round is, in numbers that count: updates that wait, clients of the model, clients that sent one.

    A server need not look at every client after each update: of those that have registered since it last did, it may
    not know. So a requirement must not become met because there are more clients.
    """

    num_updates: int
    num_clients: int
    num_clients_answered: int


class Requirement(CheckedPart, ABC):
    """A condition on a round's progress; its subclasses are frozen dataclasses whose fields are its parameters."""

    @abstractmethod
    def is_met(self, progress: RoundProgress) -> bool:
        """Whether the round may close now. A round without updates never closes, whatever this answers."""


requirements: Registry[Requirement] = Registry("requirement", "fma.requirements")
