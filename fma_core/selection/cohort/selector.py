"""The seam of selectors: the choice of the clients to ask among the eligible ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from fma_core.parameters import CheckedPart
from fma_core.registry import Registry
from fma_core.selection.candidate import Candidate, PastRound
from fma_core.selection.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Pool:
    """The input of a selector: the eligible clients, and the rounds so far.

    candidates: the eligible clients, at least one, sorted by `client`.
    num: how many are wanted; None for as many as the selector would take.
    round_number: the number of the round to choose for, from 1. past: rounds before it, the oldest first.
    """

    candidates: tuple[Candidate, ...]
    num: int | None
    round_number: int
    past: tuple[PastRound, ...] = ()

    @property
    def num_wanted(self) -> int:
        """The number of clients to choose: never more than there are."""
        return len(self.candidates) if self.num is None else min(self.num, len(self.candidates))


@dataclass(frozen=True, slots=True)
class Choice:
    """The clients to ask; `refused` has reasons for others, where there is more to say than that others were chosen."""

    chosen: frozenset[str]
    refused: Mapping[str, Refusal] = field(default_factory=dict)


class Selector(CheckedPart, ABC):
    """A way to choose clients; its subclasses are frozen dataclasses whose fields are its parameters.

    minimum: the smallest number of eligible clients, as a formula of its parameters.
    num_past: how many of the last rounds it looks at, so that no more need be read; None for all of them.
    takes_num: whether it chooses the wanted number (or all, when there are fewer); False when its own rule decides how
        many.
    """

    source: ClassVar[str] = ""
    minimum: ClassVar[str] = "1"
    takes_num: ClassVar[bool] = True

    @property
    def num_past(self) -> int | None:
        return 0

    @abstractmethod
    def choose(self, pool: Pool, rng: np.random.Generator) -> Choice:
        """Choose clients. The choice depends on the arguments alone; all randomness comes from the generator."""


selectors: Registry[Selector] = Registry("selector", "fma.selectors")
